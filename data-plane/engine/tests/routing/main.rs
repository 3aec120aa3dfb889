//! Routing against the naive model, and stepwise against whole compilation, on generated cases. How many is said by
//! GATEWAY_TEST_PROFILE: `full` asks for the million that the issue names.

mod generate;
mod model;
mod steps;

use std::collections::BTreeSet;

use gateway_engine::Engine;
use gateway_engine::compile::{Change, compile};
use gateway_engine::path;
use gateway_engine::route::{Lookup, RequestView};
use generate::{Choose as _, Rng};
use model::{Decision, Model, Request};

/// So many cases by default, ten times as many in the full profile.
#[allow(clippy::disallowed_methods, reason = "the profile is no setting of a program")]
fn cases(default: usize) -> usize {
    if std::env::var("GATEWAY_TEST_PROFILE").is_ok_and(|profile| profile == "full") {
        default * 10
    } else {
        default
    }
}

/// What the engine decides on a request as it comes.
fn decide(engine: &Engine, listener: &str, request: &Request) -> Decision {
    let listener = engine.listener(listener).expect("generated");
    let (mut host_scratch, mut path_scratch) = (Vec::new(), Vec::new());
    let host = path::host(request.host.as_bytes(), &mut host_scratch);
    let path = path::normalize(request.path.as_bytes(), &mut path_scratch);
    let (Ok(host), Ok(path)) = (host, path) else { return Decision::BadRequest };
    let view = RequestView {
        method: request.method.as_bytes(),
        host,
        path,
        query: request.query.as_bytes(),
        source: request.source.parse().expect("address"),
        headers: &*request.headers,
    };
    match engine.find(listener, &view) {
        Lookup::Found(found) => Decision::Route(found.route.name.to_string(), found.index()),
        Lookup::MethodNotAllowed(allow) => {
            Decision::Allow(allow.iter().map(str::to_owned).collect::<BTreeSet<_>>())
        }
        Lookup::NotFound => Decision::None,
    }
}

#[test]
fn the_table_answers_as_the_naive_model_does() {
    const REQUESTS: usize = 100;
    let mut seen = [0_usize; 4];
    for table in 0..cases(1_000) {
        let mut rng = Rng(table as u64);
        let names =
            ["default/r", "team/r", "team/a", "default/b", "team-x/r", "default/c", "team/d", "default/e"];
        let count = 1 + rng.below(names.len());
        let routes: Vec<_> = names[..count].iter().map(|name| generate::route(&mut rng, name)).collect();
        let changes = generate::listeners().into_iter().chain(routes.iter().cloned().map(Into::into));
        let compiled = compile(&Engine::default(), changes.map(Change::Upsert).collect());
        let Ok(compiled) = compiled else {
            // Two entries of one route that differ only before they are brought into form.
            assert!(compiled.is_err_and(|found| found.iter().all(|it| it.code.as_str() == "duplicate")));
            continue;
        };
        let model = Model::new(routes);
        for _ in 0..REQUESTS {
            let (request, listener) = (generate::request(&mut rng), rng.pick(&generate::LISTENERS));
            let expected = model.decide(listener, &request);
            assert_eq!(
                decide(&compiled.engine, listener, &request),
                expected,
                "table {table}, {listener}, {request:?}, {:#?}",
                model.routes
            );
            seen[match expected {
                Decision::BadRequest => 0,
                Decision::Route(..) => 1,
                Decision::Allow(_) => 2,
                Decision::None => 3,
            }] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 500), "every kind of answer is common: {seen:?}");
}

#[test]
fn the_form_of_paths_is_that_of_the_naive_model() {
    let mut rng = Rng(7);
    let pieces: [&[u8]; 22] = [
        b"/", b"/", b"/", b".", b".", b"..", b"a", b"B", b"%2e", b"%2E", b"%2F", b"%41", b"%c3", b"%25",
        b"%00", b"%zz", b"%", b"\\", b" ", b"\xc3", b"~", b"?",
    ];
    for _ in 0..cases(100_000) {
        let mut text = if rng.one_in(50) { Vec::new() } else { b"/".to_vec() };
        for _ in 0..rng.below(9) {
            text.extend_from_slice(rng.pick(&pieces));
        }
        let mut scratch = Vec::new();
        let form = path::normalize(&text, &mut scratch).ok().map(str::to_owned);
        assert_eq!(form, model::normalize(&text), "{:?}", String::from_utf8_lossy(&text));
    }
}
