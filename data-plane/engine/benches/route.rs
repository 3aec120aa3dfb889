//! Lookup in nanoseconds, with 1 to 100,000 routes spread in four ways. `spread` asks for every route in turn, in an
//! order that no cache foresees, `thousand` for a thousand of them, `hot` for a hundred. The requests lie in memory one
//! after the other, as a connection's buffer has just been read: what misses the caches is the table. The route that
//! was found is touched. Run with `cargo bench -p gateway-engine --bench route`.

#[path = "../tests/fixture/fleet.rs"]
mod fleet;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fleet::Shape;
use gateway_engine::route::{Lookup, RequestView};

/// Hosts and paths of requests, one after the other.
struct Requests {
    text: String,
    /// Ends of host and path.
    ends: Vec<(u32, u32)>,
}

impl Requests {
    /// For `distinct` of `count` routes.
    fn new(shape: Shape, count: usize, distinct: usize) -> Self {
        // A prime that divides no count: its multiples go through all routes.
        let order = (0..distinct).map(|at| at * 7_919 % count);
        let mut requests = Requests { text: String::new(), ends: Vec::new() };
        for at in order {
            let (host, path) = shape.request(at);
            requests.text.push_str(&host);
            let middle = requests.text.len() as u32;
            requests.text.push_str(&path);
            requests.ends.push((middle, requests.text.len() as u32));
        }
        requests
    }

    fn get(&self, at: usize, from: u32) -> (&str, &str, u32) {
        let (middle, end) = self.ends[at];
        let (from, middle) = (from as usize, middle as usize);
        (&self.text[from..middle], &self.text[middle..end as usize], end)
    }
}

fn find(criterion: &mut Criterion) {
    for (name, shape) in Shape::ALL {
        let mut group = criterion.benchmark_group(format!("find/{name}"));
        group
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .sample_size(30);
        for count in [1, 100, 10_000, 100_000] {
            let engine = fleet::engine(shape, count);
            let listener = engine.listener("default/l").expect("there").clone();
            let kinds = [("spread", count), ("thousand", 1_000), ("hot", 100)];
            for (kind, distinct) in
                kinds.into_iter().filter(|&(kind, distinct)| kind == "spread" || count > distinct)
            {
                let requests = Requests::new(shape, count, distinct);
                let (mut next, mut from) = (0, 0);
                group.bench_function(BenchmarkId::new(kind, count), |bencher| {
                    bencher.iter(|| {
                        let (host, path, end) = requests.get(next, from);
                        (next, from) = if next + 1 == distinct { (0, 0) } else { (next + 1, end) };
                        let view = RequestView {
                            method: b"GET",
                            host,
                            path,
                            query: b"",
                            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
                            headers: &[] as &[(&str, &str)],
                        };
                        match engine.find(&listener, black_box(&view)) {
                            Lookup::Found(found) => found.route.slot,
                            _ => panic!("every request has a route"),
                        }
                    });
                });
            }
        }
        group.finish();
    }
}

/// What the data plane ships with: where it puts things decides what a lookup misses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(benches, find);
criterion_main!(benches);
