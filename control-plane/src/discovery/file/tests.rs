//! Tests of `file.rs`.

use std::os::unix::fs::symlink;

use super::*;

fn shown(reading: &Reading) -> Vec<String> {
    let line = |(name, instances): (&Arc<str>, &Arc<[Instance]>)| {
        let all: Vec<String> = instances.iter().map(|it| format!("{}*{}", it.address, it.weight)).collect();
        format!("{name}: {}", all.join(" "))
    };
    reading.services.iter().map(line).collect()
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "services:\n  users:\n    - { address: \"10.0.0.2:80\", weight: 3, zone: a, tags: [v1] }\n    - address: Users.Internal:81\n  none: []\n";
    let json = r#"{"services": {"users": [{"address": "10.0.0.2:80", "weight": 3, "zone": "a", "tags": ["v1"]}, {"address": "users.internal:81"}], "none": []}}"#;
    let one = parse(yaml).expect("sound");
    assert_eq!(shown(&one), ["none: ", "users: 10.0.0.2:80*3 users.internal:81*1"]);
    assert_eq!(one, parse(json).expect("sound"));
    let first = &one.services["users"][0];
    assert_eq!((&*first.zone, &first.tags), ("a", &vec!["v1".to_owned()]));
}

#[test]
fn a_bad_entry_loses_itself_only_and_is_named() {
    let text = "services:\n  a:\n    - { address: \"10.0.0.1:80\" }\n    - { address: nonsense }\n    - { address: \"10.0.0.1:80\" }\n    - { address: \"10.0.0.2:80\", weight: 70000 }\n    - { address: \"10.0.0.3:80\", wieght: 1 }\n    - 7\n    - { address: \"10.0.0.4:80\" }\n  b: 7\n";
    let reading = parse(text).expect("some of it is sound");
    assert_eq!(shown(&reading), ["a: 10.0.0.1:80*1 10.0.0.4:80*1"]);
    let expected = [
        ("services.a[1] (the list at line 3)", "invalid target address \"nonsense\""),
        ("services.a[2]", "already"),
        ("services.a[3]", "weight 70000 is out of range"),
        ("services.a[4]", "unknown field `wieght`"),
        ("services.a[5]", "invalid type"),
        ("line 10", "services.b is no list"),
    ];
    assert_eq!(reading.faults.len(), expected.len(), "{:?}", reading.faults);
    for (fault, (place, why)) in reading.faults.iter().zip(expected) {
        assert!(fault.contains(place) && fault.contains(why), "{fault}");
    }
}

#[test]
fn a_service_that_is_wrong_is_doubtful_and_not_without_instances() {
    for (text, doubtful) in [
        ("services: { a: null }", true),
        ("services: { a: {} }", true),
        ("services: { a: [{ adress: \"a:1\" }] }", true),
        ("services: { a: [{ address: \"a:1\" }, 7] }", true),
        ("services: { a: [] }", false),
        ("services: { a: [{ address: \"a:1\" }] }", false),
        ("services: {}", false),
    ] {
        let reading = parse(text).expect(text);
        assert_eq!(reading.doubtful.contains("a"), doubtful, "{text}");
    }
}

#[test]
fn what_is_no_document_of_services_is_refused_whole_and_says_where() {
    for (text, why) in [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("services:\n  a: [\n", "line"),
        ("servicez: {}\n", "servicez"),
        ("- a\n", "expected mapping"),
        ("services: {a: [], a: []}\n", "duplicate"),
    ] {
        let refused = parse(text).expect_err(text);
        assert!(refused.contains(why), "{text:?}: {refused}");
    }
}

#[test]
fn a_file_is_bounded() {
    let many: String = (0..=MAX_SERVICES).map(|n| format!("  s{n}: []\n")).collect();
    assert!(parse(&format!("services:\n{many}")).expect_err("too many").contains("at most 10000"));
    let entries: String =
        (0..MAX_ENDPOINTS + 30).map(|n| format!("    - {{ address: a:{} }}\n", n + 1)).collect();
    let reading = parse(&format!("services:\n  a:\n{entries}")).expect("sound");
    assert_eq!(reading.services["a"].len(), MAX_ENDPOINTS);
    assert_eq!((reading.faults.len(), &*reading.faults[MAX_FAULTS]), (MAX_FAULTS + 1, "and 10 more"));
    let long = "s".repeat(1000);
    let reading = parse(&format!("services:\n  {long}: []\n  b: []\n")).expect("sound");
    assert_eq!((shown(&reading).len(), reading.faults.len()), (1, 1), "a long name loses itself only");

    let folder = tempfile::tempdir().expect("a folder");
    let file = File::create(folder.path().join("large")).expect("made");
    file.set_len(MAX_BYTES + 1).expect("set");
    let place = Place { folder: folder.path().to_owned(), path: "large".into() };
    assert!(place.read().expect_err("too large").0.contains("over 4 MiB"));
}

#[test]
fn what_is_within_the_bounds_is_read_whole_however_many_entries_that_are() {
    // More nodes than the parser takes when nobody tells it how many.
    let list = |service: usize| -> String {
        (0..100).map(|n| format!("  - {{address: \"10.0.{}.{n}:80\"}}\n", service % 256)).collect()
    };
    let text: String = (0..1_000).map(|service| format!(" s{service}:\n{}", list(service))).collect();
    let text = format!("services:\n{text}");
    assert!((text.len() as u64) < MAX_BYTES, "{}", text.len());
    let reading = parse(&text).expect("sound");
    assert_eq!(reading.faults, Vec::<String>::new());
    assert_eq!(reading.services.values().map(|found| found.len()).sum::<usize>(), 100_000);
}

#[test]
fn nothing_outside_of_the_folder_is_opened() {
    let outside = tempfile::tempdir().expect("a folder");
    let secret = outside.path().join("secret.yaml");
    std::fs::write(&secret, "services: {}\n").expect("written");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |path: &str| folder.path().join(path);
    std::fs::create_dir(at("real")).expect("made");
    std::fs::write(at("real/good.yaml"), "services: {}\n").expect("written");
    symlink(&secret, at("absolute")).expect("linked");
    symlink("../../../../../../../../../etc/hostname", at("climbing")).expect("linked");
    symlink(outside.path(), at("elsewhere")).expect("linked");
    symlink("real", at("inside")).expect("linked");
    symlink("loop", at("loop")).expect("linked");
    let read = |path: &str| Place { folder: folder.path().to_owned(), path: path.into() }.read();
    for good in ["real/good.yaml", "inside/good.yaml"] {
        read(good).expect(good);
    }
    for bad in ["absolute", "climbing", "elsewhere/secret.yaml", "loop", "../x"] {
        let refused = read(bad).expect_err(bad).0;
        assert!(refused.contains("leads out of --discovery-file-dir"), "{bad}: {refused}");
    }
    assert!(read("missing").expect_err("missing").0.contains("No such file"));
    assert!(read("real").expect_err("a folder").0.contains("is not a file"));
}

/// Reads until that is what there is: a hint may come twice.
async fn until(source: &mut FileSource, expected: Result<&[&str], &str>) {
    let wait = async {
        loop {
            let is_so = match (source.next().await, expected) {
                (Ok(reading), Ok(expected)) => shown(&reading) == expected,
                (Err(fault), Err(expected)) => fault.0.contains(expected),
                _ => false,
            };
            if is_so {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), wait).await.expect("within 20 s");
}

#[tokio::test]
async fn changes_are_seen_without_being_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s.yaml");
    let mut source = FileSource::new(folder.path(), "s.yaml");
    until(&mut source, Err("No such file")).await;
    std::fs::write(&path, "services: { a: [{ address: \"a:1\" }] }\n").expect("written");
    until(&mut source, Ok(&["a: a:1*1"])).await;
    // As editors and mounts do it: another file takes its name.
    std::fs::write(folder.path().join("new"), "services: { a: [{ address: \"a:2\" }] }\n").expect("written");
    std::fs::rename(folder.path().join("new"), &path).expect("renamed");
    until(&mut source, Ok(&["a: a:2*1"])).await;
    std::fs::write(&path, "services: [").expect("written");
    until(&mut source, Err("line")).await;
    std::fs::write(&path, "services: {}\n").expect("written");
    until(&mut source, Ok(&[])).await;
    let looked = source.look("a").await.expect("sound");
    assert!(looked.services.is_empty());
}
