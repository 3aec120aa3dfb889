//! The control plane from outside: the whole process through `run()`, on SQLite in a folder of its own and on free
//! ports, spoken to over HTTP and as a data plane.

mod apply;
mod auth;
mod backup;
mod chores;
mod client;
mod data_plane;
mod discovery;
mod history;
mod limits;
mod process;
mod program;
mod replicas;
mod resources;
mod secrets;
mod stream;
