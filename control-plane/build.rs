//! A new migration is a new file: without this, cargo would not see that the schema built into the program is old.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
