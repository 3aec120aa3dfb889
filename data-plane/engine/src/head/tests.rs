//! Tests of `head.rs`.

use proptest::prelude::*;

use super::*;

const WIRE: &[u8] = b"GET /a/b?q=1 HTTP/1.1\r\nHost: x\r\nAccept: a\r\nX-Tag: 1\r\naccept: b\r\n\r\n";

fn text(of: &str, nth: usize) -> Text {
    let wire = std::str::from_utf8(WIRE).expect("ASCII");
    let (at, _) = wire.match_indices(of).nth(nth).expect("is in there");
    Text::wire(at as u32, of.len() as u32)
}

fn parsed() -> HeadParts {
    let mut parts = HeadParts::new();
    parts.set_request_line(RequestLine {
        method: text("GET", 0),
        target: text("/a/b?q=1", 0),
        path: text("/a/b", 0),
        query: Some(text("q=1", 0)),
        authority: text("x", 0),
    });
    parts.push(text("Host", 0), text("x", 0), 1);
    parts.push(text("Accept", 0), text("a", 1), 2);
    parts.push(text("X-Tag", 0), text("1", 3), 0);
    parts.push(text("accept", 0), text("b", 1), 2);
    parts
}

fn lines(head: &Head<'_>) -> Vec<String> {
    head.iter()
        .map(|(name, value, tag)| {
            format!("{}: {} #{tag}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        })
        .collect()
}

#[test]
fn a_parsed_head_reads_from_the_wire_in_order() {
    let mut parts = parsed();
    let head = Head::new(WIRE, &mut parts);
    assert_eq!((head.method(), head.path(), head.query()), (&b"GET"[..], &b"/a/b"[..], Some(&b"q=1"[..])));
    assert_eq!((head.authority(), head.target()), (&b"x"[..], &b"/a/b?q=1"[..]));
    assert_eq!(lines(&head)[1..], ["Accept: a #2", "X-Tag: 1 #0", "accept: b #2"]);
}

#[test]
fn lookup_ignores_case_and_joins_repeats() {
    let mut parts = parsed();
    let head = Head::new(WIRE, &mut parts);
    assert_eq!(head.get("accept"), Some(&b"a"[..]));
    assert_eq!(head.get_all("accept").collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(head.joined("accept").as_deref(), Some(&b"a, b"[..]));
    assert!(matches!(head.joined("host"), Some(Cow::Borrowed(b"x"))));
    assert_eq!((head.get("x-ta"), head.joined("x-tagg")), (None, None));
    let mut out = Vec::new();
    assert!(head.join_into("accept", &mut out) && !head.join_into("nope", &mut out));
    assert_eq!(out, b"a, b");
}

#[test]
fn set_replaces_the_first_in_place_and_drops_the_rest() {
    let mut parts = parsed();
    let mut head = Head::new(WIRE, &mut parts);
    head.set("accept", b"c");
    head.set("x-new", b"n");
    assert_eq!(lines(&head), ["Host: x #1", "Accept: c #2", "X-Tag: 1 #0", "x-new: n #0"]);
}

#[test]
fn add_remove_and_rename_keep_the_order_of_the_others() {
    let mut parts = parsed();
    let mut head = Head::new(WIRE, &mut parts);
    head.add("x-tag", b"2");
    assert_eq!(head.rename("accept", "x-accept"), 2);
    assert_eq!(head.remove("x-tag"), 2);
    assert_eq!(head.remove("x-tag"), 0);
    assert!(!head.contains("accept") && !head.contains("x-tag"));
    assert_eq!(lines(&head), ["Host: x #1", "x-accept: a #0", "x-accept: b #0"]);
}

#[test]
fn edits_survive_each_other_and_clear_forgets_them() {
    let mut parts = parsed();
    let mut head = Head::new(WIRE, &mut parts);
    head.set_path(b"/first");
    for at in 0..100 {
        head.add("x-many", format!("{at}").as_bytes());
    }
    assert_eq!(head.path(), b"/first");
    assert_eq!(head.get_all("x-many").nth(99), Some(&b"99"[..]));
    parts.clear();
    assert_eq!(Head::new(b"", &mut parts).iter().count(), 0);
}

#[test]
fn the_received_size_is_what_was_read_whatever_was_edited() {
    let mut parts = parsed();
    let mut head = Head::new(WIRE, &mut parts);
    head.add("x-forwarded-for", b"192.0.2.1");
    head.remove("accept");
    head.set("x-new", b"1");
    assert_eq!(head.received_size(), WIRE.len());
}

#[test]
fn a_head_can_be_made_from_nothing() {
    let mut parts = HeadParts::new();
    let mut head = Head::new(b"", &mut parts);
    head.set_status(204);
    head.add("vary", b"origin");
    assert_eq!((head.status(), head.get("vary")), (204, Some(&b"origin"[..])));
}

/// The naive model: names and values in a list.
#[derive(Clone, Debug)]
enum Edit {
    Set(usize, u8),
    Add(usize, u8),
    Remove(usize),
    Rename(usize, usize),
}

const NAMES: [&str; 4] = ["accept", "host", "x-tag", "x-new"];

fn edit() -> impl Strategy<Value = Edit> {
    let name = 0..NAMES.len();
    prop_oneof![
        (name.clone(), any::<u8>()).prop_map(|(name, value)| Edit::Set(name, value)),
        (name.clone(), any::<u8>()).prop_map(|(name, value)| Edit::Add(name, value)),
        name.clone().prop_map(Edit::Remove),
        (name.clone(), name).prop_map(|(from, to)| Edit::Rename(from, to)),
    ]
}

fn apply_to_model(edit: &Edit, model: &mut Vec<(String, String)>) {
    match *edit {
        Edit::Set(name, value) => {
            let first = model.iter().position(|(known, _)| known.eq_ignore_ascii_case(NAMES[name]));
            let Some(first) = first else { return apply_to_model(&Edit::Add(name, value), model) };
            model[first].1 = value.to_string();
            let mut at = 0;
            model.retain(|(known, _)| {
                at += 1;
                at - 1 == first || !known.eq_ignore_ascii_case(NAMES[name])
            });
        }
        Edit::Add(name, value) => model.push((NAMES[name].to_owned(), value.to_string())),
        Edit::Remove(name) => model.retain(|(known, _)| !known.eq_ignore_ascii_case(NAMES[name])),
        Edit::Rename(from, to) => {
            for (known, _) in model.iter_mut().filter(|(known, _)| known.eq_ignore_ascii_case(NAMES[from])) {
                NAMES[to].clone_into(known);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_edits_does_what_it_does_to_a_list(edits in prop::collection::vec(edit(), 0..30)) {
        let mut parts = parsed();
        let mut head = Head::new(WIRE, &mut parts);
        let texts = |head: &Head<'_>| -> Vec<(String, String)> {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            head.iter().map(|(name, value, _)| (text(name), text(value))).collect()
        };
        let mut model = texts(&head);
        for edit in &edits {
            apply_to_model(edit, &mut model);
            match *edit {
                Edit::Set(name, value) => head.set(NAMES[name], value.to_string().as_bytes()),
                Edit::Add(name, value) => head.add(NAMES[name], value.to_string().as_bytes()),
                Edit::Remove(name) => { head.remove(NAMES[name]); }
                Edit::Rename(from, to) => { head.rename(NAMES[from], NAMES[to]); }
            }
            prop_assert_eq!(&texts(&head), &model);
        }
    }
}
