//! What manifests mean and how their errors read. Each class of error has its rendering in `snapshots/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gateway_proto::wire;
use proptest::prelude::*;

use super::*;

fn head(kind: &str, name: &str) -> String {
    format!("apiVersion: gateway/v1\nkind: {kind}\nmetadata: {{ name: {name} }}\n")
}

fn environment() -> Resolver {
    Resolver::with_variables([("PORT", "8080"), ("HOST", "api.example.com"), ("ON", "true")].map(pair).into())
}

fn pair((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn good(text: &str) -> Vec<Document> {
    parse("shop.yaml", text.as_bytes(), &environment()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn bad(text: &[u8]) -> ManifestErrors {
    parse("shop.yaml", text, &environment()).expect_err("it is wrong")
}

fn route(document: &Document) -> &wire::RouteSpec {
    match &document.resource {
        Resource::Route(route) => route.spec.as_ref().expect("it has a spec"),
        other => panic!("a route was written, not a {}", other.kind()),
    }
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: users, labels: { team: a } }\nspec:\n  hosts: [a.example]\n  \
                priority: -3\n  matches:\n    - path: { prefix: /users }\n      methods: [GET]\n  forward:\n    backends:\n      \
                - { upstream: users, weight: 0 }\n";
    let json = r#"{"apiVersion":"gateway/v1","kind":"Route","metadata":{"name":"users","labels":{"team":"a"}},
        "spec":{"hosts":["a.example"],"priority":"-3","matches":[{"path":{"prefix":"/users"},"methods":["GET"]}],
        "forward":{"backends":[{"upstream":"users","weight":0}]}}}"#;
    let (from_yaml, from_json) = (good(yaml), good(json));
    assert_eq!(from_yaml[0].resource, from_json[0].resource);
    let again = serde_json::to_string(&from_yaml[0].resource).expect("it is JSON");
    assert_eq!(good(&again)[0].resource, from_yaml[0].resource);
    let spec = route(&from_yaml[0]);
    assert_eq!((spec.priority, spec.hosts.as_slice()), (-3, ["a.example".to_owned()].as_slice()));
}

#[test]
fn documents_come_in_sections_lists_and_both() {
    let one = head("Upstream", "a");
    let listed = "---\n- { apiVersion: gateway/v1, kind: Upstream, metadata: { name: b } }\n- apiVersion: gateway/v1\n  \
                  kind: Upstream\n  metadata:\n    name: c\n";
    let json = "---\n[{\"apiVersion\":\"gateway/v1\",\"kind\":\"Upstream\",\"metadata\":{\"name\":\"d\"}},\n\t{\"apiVersion\":\
                \"gateway/v1\",\"kind\":\"Upstream\",\"metadata\":{\"name\":\"e\"}}]\n";
    let text = format!("# a comment\n{one}{listed}---\n---\n# nothing\n{json}");
    let documents = good(&text);
    let names: Vec<String> = documents.iter().map(|document| document.key().name).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    for document in &documents {
        let place = document.written.locate("");
        let name = &document.written.source().text()[place.span];
        assert_eq!(name.trim_matches('"'), document.key().name);
    }
    assert!(good("").is_empty() && good("\u{feff}# only a comment").is_empty() && good("[]").is_empty());
}

#[test]
fn scalars_are_read_as_their_field_wants_them() {
    let documents = good(&format!(
        "{}spec:\n  port: ${{PORT}}\n  address: 127.0.0.1\n  http: {{ maxUriBytes: 0x100 }}\n---\n{}spec:\n  global: ${{ON}}\n---\n{}spec:\n  \
         hosts: [\"${{HOST}}\", \"${{OTHER:-b.example}}\"]\n  matches:\n    - headers: [{{ name: x-version, exact: 1.10 }}, {{ name: x, present: false }}]\n      \
         path: {{ regex: \"^/[0-9]+$\" }}\n  respond: {{ body: \"$${{PORT}} ${{request.id}} $$\" }}\n",
        head("Listener", "public"),
        head("Policy", "all"),
        head("Route", "r")
    ));
    let Resource::Listener(listener) = &documents[0].resource else { panic!("a listener") };
    let spec = listener.spec.as_ref().expect("spec");
    assert_eq!((spec.port, spec.http.as_ref().and_then(|http| http.max_uri_bytes)), (Some(8080), Some(256)));
    let Resource::Policy(policy) = &documents[1].resource else { panic!("a policy") };
    assert!(policy.spec.as_ref().expect("spec").global);
    let spec = route(&documents[2]);
    assert_eq!(spec.hosts, ["api.example.com", "b.example"]);
    let headers = &spec.matches[0].headers;
    assert_eq!(headers[0].kind, Some(wire::value_match::Kind::Exact("1.10".into())));
    assert_eq!(headers[1].kind, Some(wire::value_match::Kind::Present(false)));
    let Some(wire::route_spec::Action::Respond(respond)) = &spec.action else { panic!("a respond route") };
    assert_eq!(respond.body, "${PORT} ${request.id} $$");
}

#[test]
fn filled_in_text_is_never_parsed_again() {
    let sneaky = Resolver::with_variables(
        [("BODY", "x, hosts: [evil.example]\nhosts: [evil.example]")].map(pair).into(),
    );
    let text = format!("{}spec:\n  respond: {{ body: \"${{BODY}}\" }}\n", head("Route", "r"));
    let documents = parse("shop.yaml", text.as_bytes(), &sneaky).expect("it is fine");
    assert!(route(&documents[0]).hosts.is_empty());
}

#[test]
fn a_body_from_the_network_neither_sees_variables_nor_files() {
    let text = format!("{}spec: {{ respond: {{ body: \"${{PORT}} $$\" }} }}", head("Route", "r"));
    let documents = parse("body", text.as_bytes(), &Resolver::literal()).expect("it is fine");
    let Some(wire::route_spec::Action::Respond(respond)) = &route(&documents[0]).action else {
        panic!("respond")
    };
    assert_eq!(respond.body, "${PORT} $$");
    let text = format!("{}spec: {{ respond: {{ body: {{ $file: /etc/hostname }} }} }}", head("Route", "r"));
    assert!(parse("body", text.as_bytes(), &Resolver::literal()).is_err());
}

#[test]
fn a_file_stands_where_a_string_stands() {
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("page.html"), "<b>${PORT}</b>\n").expect("file");
    let text = format!("{}spec: {{ respond: {{ body: {{ $file: ./page.html }} }} }}\n", head("Route", "r"));
    std::fs::write(folder.path().join("route.yaml"), text).expect("file");
    let documents = load(&[folder.path().to_path_buf()], false, &environment()).expect("it is fine");
    let Some(wire::route_spec::Action::Respond(respond)) = &route(&documents[0]).action else {
        panic!("respond")
    };
    assert_eq!(respond.body, "<b>${PORT}</b>\n", "a file's content is taken as it is");
}

#[test]
fn aliases_and_merge_keys_repeat_what_they_name() {
    let text = format!(
        "{}spec:\n  matches:\n    - &m\n      path: {{ prefix: /a }}\n      methods: [GET]\n    - *m\n    - {{ <<: *m, methods: [POST] }}\n",
        head("Route", "r")
    );
    let documents = good(&text);
    let matches = &route(&documents[0]).matches;
    assert_eq!(matches[0], matches[1]);
    assert_eq!(
        (matches[2].methods.as_slice(), &matches[2].path),
        (["POST".to_owned()].as_slice(), &matches[0].path)
    );
}

#[test]
fn a_field_path_leads_to_the_authors_own_line() {
    let text = format!(
        "# comment\n---\n{}spec:\n  policy_refs: [x]\n  matches:\n    - path:\n        regex: '(['\n  policies:\n    - requestHeaders:\n        \
         set: {{ \"x-a b\": 1 }}\n",
        head("Route", "users")
    );
    let document = &good(&text)[0];
    for (field, line, shown) in [
        ("", 5, "users"),
        ("metadata.name", 5, "users"),
        ("spec.matches[0].path.regex", 10, "'(['"),
        ("spec.matches[0].path", 9, "path"),
        ("spec.matches[0].methods", 9, "path"),
        ("spec.matches[7].path", 8, "matches"),
        ("spec.policyRefs[0]", 7, "x"),
        ("spec.policies[0].requestHeaders.set[\"x-a b\"]", 13, "1"),
        ("spec.forward", 6, "spec"),
        ("nonsense[[", 5, "users"),
    ] {
        let place = document.written.locate(field);
        assert_eq!(
            (place.line, &document.written.source().text()[place.span.clone()]),
            (line, shown),
            "{field}"
        );
    }
}

#[test]
fn output_that_is_read_again_is_unchanged() {
    let text = format!(
        "{}spec: {{ respond: {{ body: \"$${{PORT}} $$$${{X:-y}} ${{path.id}} $\" }} }}",
        head("Route", "r")
    );
    let first = good(&text);
    let json = serde_json::to_string(&first[0].resource).expect("it is JSON");
    assert_eq!(good(&escape(&json))[0].resource, first[0].resource);
}

#[test]
fn folders_are_read_in_name_order_and_below_only_when_asked() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).expect("file");
    std::fs::create_dir(folder.path().join("below")).expect("folder");
    write("b.yaml", &head("Upstream", "b"));
    write("a.json", r#"{"apiVersion":"gateway/v1","kind":"Upstream","metadata":{"name":"a"}}"#);
    write("c.yml", &head("Upstream", "c"));
    write("below/d.yaml", &head("Upstream", "d"));
    write(".hidden.yaml", "{");
    write("README.md", "{");
    let names = |recursive| -> Vec<String> {
        let documents =
            load(&[folder.path().to_path_buf()], recursive, &environment()).expect("they are fine");
        documents.iter().map(|document| document.key().name).collect()
    };
    assert_eq!(names(false), ["a", "b", "c"]);
    assert_eq!(names(true), ["a", "b", "d", "c"]);
    let missing = load(&[folder.path().join("none.yaml")], false, &environment()).expect_err("there is none");
    assert!(missing.is_unreadable() && missing.to_string().contains("none.yaml"));
    write("broken.yaml", "kind: Rout\n");
    let errors = load(&[folder.path().to_path_buf()], false, &environment()).expect_err("one is broken");
    assert!(!errors.is_unreadable());
}

#[test]
fn a_default_namespace_fills_in_where_none_is_written() {
    let mut batch = Batch::new(environment()).namespace(Some("shop".into()));
    let other = "---\napiVersion: gateway/v1\nkind: Upstream\nmetadata: { name: a, namespace: other }\n";
    batch.add_text("x", format!("{}{other}", head("Upstream", "a")).as_bytes(), None);
    let keys: Vec<String> = batch.finish().expect("fine").iter().map(|it| it.key().qualified()).collect();
    assert_eq!(keys, ["shop/a", "other/a"]);
}

#[test]
fn an_error_in_one_document_hides_none_in_another() {
    let text = format!(
        "{}---\nkind: [\n---\n{}spec: {{ x: 1 }}\n---\n{}",
        head("Route", "a"),
        head("Route", "b"),
        head("Rout", "c")
    );
    let lines: Vec<usize> =
        bad(text.as_bytes()).errors.iter().filter_map(|error| Some(error.at.as_ref()?.line)).collect();
    assert_eq!(lines, [5, 10, 13]);
}

#[test]
fn errors_are_bounded() {
    let text = "---\nkind: X\n".repeat(MAX_ERRORS);
    let errors = bad(text.as_bytes());
    assert_eq!((errors.errors.len(), errors.more), (MAX_ERRORS, MAX_ERRORS), "each has no apiVersion either");
    assert!(errors.to_string().ends_with("and 100 more errors"));
}

#[test]
fn a_batch_is_bounded_in_documents_and_bytes() {
    let sections = "---\nkind: Upstream\n".repeat(MAX_DOCUMENTS + 1);
    let items = format!("[{}]", "{},".repeat(MAX_DOCUMENTS + 1));
    for (text, line) in [(sections, 2 * MAX_DOCUMENTS + 1), (items, 1)] {
        let first = &bad(text.as_bytes()).errors[0];
        assert_eq!(first.message, "more than 250000 objects in one batch");
        assert_eq!(first.at.as_ref().map(|at| at.line), Some(line));
    }
    let mut batch = Batch::new(environment());
    let comment = vec![b'#'; MAX_APPLY_BYTES];
    batch.add_text("first", &comment, None);
    batch.add_text("second", b"#", None);
    let errors = batch.finish().expect_err("one byte too many");
    assert_eq!(errors.errors[0].file, "second");
}

/// Every class of error, as people see it.
#[test]
fn every_class_of_error_names_place_and_remedy() {
    let spec = |kind: &str, spec: &str| format!("{}spec:\n{spec}\n", head(kind, "users")).into_bytes();
    let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |mut text, n| {
        let _ = writeln!(text, "a{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 9].join(","));
        text
    });
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("syntax", spec("Route", "  hosts: [a, b\n  priority: 1")),
        ("unquoted variable", spec("Route", "  hosts: [${HOST}]")),
        ("bad indentation", spec("Route", "   hosts: []\n  priority: 1")),
        ("unknown field", spec("Listener", "  prot: 8080\n  policy_ref: []")),
        ("wrong type: number", spec("Listener", "  port: eighty")),
        ("wrong type: negative", spec("Listener", "  port: -1")),
        ("wrong type: too large", spec("Route", "  priority: 3000000000")),
        ("wrong type: fraction", spec("Listener", "  port: 80.5")),
        ("wrong type: list for number", spec("Listener", "  port: [80]")),
        ("wrong type: string for list", spec("Route", "  hosts: a.example")),
        ("wrong type: list for object", spec("Route", "  forward: [a]")),
        ("wrong type: object for string", spec("Route", "  hosts: [{ a: b }]")),
        ("wrong type: nothing for string", spec("Route", "  redirect: { host: }")),
        ("wrong type: bool", spec("Policy", "  global: yes")),
        ("bad enum", spec("Listener", "  protocol: HTTP")),
        ("bad enum number", spec("Listener", "  protocol: 7")),
        ("two of a choice", spec("Route", "  matches:\n    - path: { exact: /a, prefix: /b }")),
        ("unknown kind", head("Rout", "users").into_bytes()),
        ("kind missing", b"apiVersion: gateway/v1\nmetadata: { name: a }\n".to_vec()),
        ("kind and apiVersion wrong", b"apiVersion: v1\nkind: [a]\n".to_vec()),
        ("name missing", b"apiVersion: gateway/v1\nkind: Route\nmetadata: { labels: {} }\n".to_vec()),
        ("metadata missing", b"apiVersion: gateway/v1\nkind: Route\n".to_vec()),
        ("no object", b"just text\n".to_vec()),
        ("duplicate key", spec("Route", "  hosts: []\n  priority: 1\n  hosts: []")),
        ("duplicate object", format!("{}---\n{}", head("Route", "a"), head("Route", "a")).into_bytes()),
        ("unset variable", spec("Route", "  hosts: [\"${NOPE}\", \"${NADA}\"]")),
        ("file outside", spec("Route", "  respond: { body: { $file: ../secret } }")),
        ("file beside another key", spec("Route", "  respond: { body: { $file: a, b: c } }")),
        ("unknown alias", spec("Route", "  hosts: *nobody")),
        ("alias of itself", spec("Route", "  hosts: &a [*a]")),
        ("unknown tag", spec("Route", "  hosts: !secret [a]")),
        ("merge of a scalar", spec("Route", "  respond: { <<: a }")),
        ("key that is a list", spec("Route", "  [a, b]: c")),
        ("deep nesting", [head("Route", "a").into_bytes(), b"spec: ".to_vec(), vec![b'['; 70]].concat()),
        (
            "deep nesting, blocks",
            (0..70).fold(String::new(), |text, n| text + &" ".repeat(n) + "a:\n").into_bytes(),
        ),
        ("alias bomb", bomb.into_bytes()),
        (
            "document too large",
            [head("Route", "a").into_bytes(), b"# ".to_vec(), vec![b'x'; MAX_DOCUMENT_BYTES]].concat(),
        ),
        ("invalid UTF-8", b"kind: Route\nmetadata: { name: \xff\xfe }\n".to_vec()),
        ("control characters", b"kind: \"a\\e[31m\x07\"\n".to_vec()),
        (
            "long line",
            format!("kind: Route\nspec: {{ hosts: [{}], nope: 1 }}", "a, ".repeat(500)).into_bytes(),
        ),
    ];
    let mut shown = String::new();
    for (name, text) in cases {
        let resolver = environment().within("/nonexistent");
        let errors = parse("shop.yaml", &text, &resolver).expect_err(name);
        let _ = writeln!(shown, "## {name}\n{errors}\n");
    }
    insta::assert_snapshot!("errors", shown);
}

const SAMPLE: &str = "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: users, labels: &l { a: b } }\nspec:\n  hosts: [\"*.example\", ${X:-y}]\n  \
                      matches:\n    - path: { regex: '^/a$' }\n      headers: [{ name: a, exact: \"1\" }]\n  respond:\n    body: |\n      text\n---\n- *l\n";

proptest! {
    #[test]
    fn nothing_panics_on_any_bytes(text in proptest::collection::vec(any::<u8>(), 0..400), field in ".{0,40}") {
        for document in parse("x", &text, &environment()).into_iter().flatten() {
            prop_assert_place(&document.written.locate(&field), document.written.source().text());
        }
    }

    #[test]
    fn nothing_panics_on_almost_sound_text(
        edits in proptest::collection::vec((0..SAMPLE.len(), "[-{}\\[\\]:,&*!|>'\"%@`#\n \t$~<ä]{0,3}", 0..4_usize), 1..8),
        field in "[a-z.\\[\\]0-9\"\\\\]{0,30}",
    ) {
        let mut text = SAMPLE.to_owned();
        for (at, insert, remove) in edits {
            let from = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let to = (from..=(from + remove).min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(from);
            text.replace_range(from..to, &insert);
        }
        match parse("x", text.as_bytes(), &environment()) {
            Ok(documents) => documents.iter().for_each(|it| prop_assert_place(&it.written.locate(&field), it.written.source().text())),
            Err(errors) => prop_assert!(!errors.to_string().is_empty()),
        }
    }

    #[test]
    fn escaping_survives_every_text(text in "[$A-Z{}:a-]{0,30}") {
        let resolver = Resolver::with_variables(BTreeMap::new());
        let escaped = escape(&text).into_owned();
        let back = resolver.fill(&escaped).expect("nothing is asked for").unwrap_or(escaped);
        prop_assert_eq!(back, text);
    }
}

fn prop_assert_place(place: &Place, text: &str) {
    assert!(place.line > 0 && place.column > 0 && text.get(place.span.clone()).is_some());
}

#[test]
fn an_excerpt_shows_no_secret_and_no_message_a_private_key() {
    let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    let object = |spec: &str| {
        format!("apiVersion: gateway/v1\nkind: Certificate\nmetadata: {{ name: a }}\nspec: {spec}\n")
    };
    let block = format!("\n  key: |\n    {}\n  cert: x", key.trim_end().replace('\n', "\n    "));
    for (spec, field, shown) in [
        ("{ cert: x, key: hunter2 } # y", "spec.key", "spec: { cert: x, key: *** } # y"),
        ("{ cert: x, key: hunter2 }", "spec.cert", "spec: { cert: x, key: *** }"),
        ("{ key: hunter2, cert: x }", "spec.cert", "spec: { key: ***, cert: x }"),
        ("\n  key: \"hunter2\"", "spec.key", "  key: ***"),
    ] {
        let documents = parse("x", object(spec).as_bytes(), &Resolver::literal()).expect("sound");
        let excerpt = documents[0].written.excerpt(field);
        assert_eq!(excerpt.text, shown);
        let marked = &excerpt.text[excerpt.mark.clone()];
        assert_eq!(marked, if field == "spec.key" { "***" } else { "x" });
    }
    let documents = parse("x", object(&block).as_bytes(), &Resolver::literal()).expect("sound");
    let excerpt = documents[0].written.excerpt("spec.key");
    assert!(!excerpt.text.contains("c2VjcmV0"), "{excerpt:?}");

    // What cannot even be read.
    let inline = format!("{key:?}");
    for broken in [
        format!("\n  port: {inline}"),
        format!("{{ cert: {inline}, kee: 1 }}"),
        format!("{block}\n   bad"),
        block.replace("c2Vj", "\tc2Vj").replace("    \t", "\t"),
    ] {
        let text = object(&broken).replace("Certificate", "Listener");
        let told = parse("x", text.as_bytes(), &Resolver::literal()).expect_err("broken").to_string();
        assert!(!told.contains("c2VjcmV0"), "{told}");
    }
}
