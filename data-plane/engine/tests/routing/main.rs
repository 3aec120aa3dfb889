//! Routing against the naive model, and stepwise against whole compilation, on generated cases. How many is said by
//! GATEWAY_TEST_PROFILE: `full` asks for the million that the issue names.

mod generate;
mod model;
#[path = "../../fuzz/src/oracle.rs"]
mod oracle;
mod steps;

use gateway_engine::Engine;
use gateway_engine::compile::{Change, compile};
use gateway_engine::path;
use generate::Choose;
use model::{Decision, Model};
use oracle::decide;

/// So many cases by default, ten times as many in the full profile.
#[allow(clippy::disallowed_methods, reason = "the profile is no setting of a program")]
fn cases(default: usize) -> usize {
    if std::env::var("GATEWAY_TEST_PROFILE").is_ok_and(|profile| profile == "full") {
        default * 10
    } else {
        default
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Choose for Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

#[test]
fn the_table_answers_as_the_naive_model_does() {
    const REQUESTS: usize = 100;
    let mut seen = [0_usize; 4];
    for table in 0.. {
        if seen.iter().sum::<usize>() >= cases(100_000) {
            break;
        }
        let mut rng = Rng(table);
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

/// Runs an oracle over the committed seeds of its target.
fn replay(target: &str, oracle: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(folder).expect("seeds are committed").collect();
    assert!(seeds.len() >= 4, "{target}");
    for seed in seeds {
        oracle(&std::fs::read(seed.expect("an entry").path()).expect("readable"));
    }
}

#[test]
fn what_the_fuzzers_began_with_and_found_holds() {
    replay("compile", oracle::compile);
    replay("route", oracle::route);
    replay("normalize", oracle::normalize);
}
