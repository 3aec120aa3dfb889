//! What the fuzz targets hold: compile never panics and what it accepts can be asked, the table answers as the naive
//! model does, the form of paths is that of the naive model. Replayed on the committed seeds by `tests/routing`.

use std::collections::BTreeSet;

use gateway_engine::Engine;
use gateway_engine::compile::{Change, compile as compile_changes};
use gateway_engine::path;
use gateway_engine::route::{Lookup, RequestView};
use gateway_proto::admin::ExplainRequest;
use gateway_proto::kind::{Kind, Resource};

use crate::generate::{self, Choose};
use crate::model::{self, Decision, Model, Request};

/// Choices from a fuzzer's bytes; zeros when they end.
struct Bytes<'a>(&'a [u8]);

impl Choose for Bytes<'_> {
    fn below(&mut self, n: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % n
    }
}

/// What the engine decides on a request as it comes.
pub(crate) fn decide(engine: &Engine, listener: &str, request: &Request) -> Decision {
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

/// Compiles what the bytes say, in batches. They are a list of kind, delete flag and length (three bytes and one for
/// each 256), then the encoded object; a flag of 2 or more ends a batch.
pub(crate) fn compile(data: &[u8]) {
    let mut engine = Engine::default();
    let mut batch = Vec::new();
    let mut rest = data;
    while let [kind, flag, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (body, after) = after.split_at(length);
        rest = after;
        let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
        if let Ok(resource) = Resource::decode(kind, body) {
            batch.push(if flag & 1 == 1 { Change::Delete(resource.key()) } else { Change::Upsert(resource) });
        }
        if *flag > 1 {
            engine = step(engine, std::mem::take(&mut batch));
        }
    }
    step(engine, batch);
}

fn step(engine: Engine, batch: Vec<Change>) -> Engine {
    let named: BTreeSet<_> = batch.iter().map(Change::key).collect();
    match compile_changes(&engine, batch) {
        Err(violations) => {
            assert!(!violations.is_empty());
            assert!(violations.iter().all(|found| named.contains(&found.object)), "{violations:?}");
            engine
        }
        Ok(compiled) => {
            let engine = compiled.engine;
            let all = engine.objects().into_iter().map(|object| {
                Change::Upsert(Resource::decode(object.key.kind, object.body).expect("compile encoded it"))
            });
            let again =
                compile_changes(&Engine::default(), all.collect()).expect("what was accepted is accepted");
            assert_eq!(again.engine.warnings(), engine.warnings());
            for path in ["/", "/a/b?q=1", "/users/7"] {
                let request = ExplainRequest {
                    listener: None,
                    method: "GET".to_owned(),
                    host: "a.x.org".to_owned(),
                    path: path.to_owned(),
                    headers: Vec::new(),
                    source: None,
                };
                assert_eq!(again.engine.explain(&request), engine.explain(&request));
            }
            engine
        }
    }
}

/// Makes a table and requests from the bytes and asks engine and model.
pub(crate) fn route(data: &[u8]) {
    let mut choose = Bytes(data);
    let count = 1 + choose.below(6);
    let names = ["default/r", "team/r", "team/a", "default/b", "team-x/r", "default/c"];
    let routes: Vec<_> = names[..count].iter().map(|name| generate::route(&mut choose, name)).collect();
    let changes = generate::listeners().into_iter().chain(routes.iter().cloned().map(Into::into));
    let Ok(compiled) = compile_changes(&Engine::default(), changes.map(Change::Upsert).collect()) else {
        return;
    };
    let model = Model::new(routes);
    loop {
        let request = generate::request(&mut choose);
        for listener in generate::LISTENERS {
            let (decision, expected) =
                (decide(&compiled.engine, listener, &request), model.decide(listener, &request));
            assert_eq!(decision, expected, "{listener} {request:?} {:#?}", model.routes);
        }
        if choose.0.is_empty() {
            return;
        }
    }
}

/// Brings the bytes into form as a path, and as a host.
pub(crate) fn normalize(data: &[u8]) {
    let (mut scratch, mut again) = (Vec::new(), Vec::new());
    let form = path::normalize(data, &mut scratch).ok().map(str::to_owned);
    assert_eq!(form, model::normalize(data), "{:?}", String::from_utf8_lossy(data));
    if let Some(form) = form {
        assert_eq!(path::normalize(form.as_bytes(), &mut again), Ok(&*form));
    }
    if let Ok(host) = path::host(data, &mut scratch).map(str::to_owned) {
        assert_eq!(path::host(host.as_bytes(), &mut again), Ok(&*host));
    }
}
