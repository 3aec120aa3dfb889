//! What a check of an API key costs at a million keys, asked for in an order that no cache foresees: the form, the
//! digest, the table. `wrong` are keys of the right form that are not there, `junk` are texts of the right length.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway_engine::identity::Keys;
use gateway_proto::credential::{Grant, KeyDigest, RANDOM_LEN, is_key, key};

const KEYS: u64 = 1_000_000;

fn secret(n: u64) -> String {
    let mut state = n;
    let digit = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[(state >> 33) as usize % 62],
        )
    };
    key(&(0..RANDOM_LEN).map(digit).collect::<String>())
}

fn check(keys: &Keys, text: &str) -> bool {
    is_key(text.as_bytes())
        && keys.look(&KeyDigest::of(text.as_bytes()), |found| {
            found.is_some_and(|found| !found.consumer.is_empty())
        })
}

fn keys(c: &mut Criterion) {
    let keys = Keys::default();
    let grant = |n: u64| Grant {
        digest: KeyDigest::of(secret(n).as_bytes()),
        consumer: format!("default/consumer-{}", n % 10_000).into(),
        expires: 0,
    };
    keys.change((0..KEYS).map(grant).collect(), &[]);
    // Far more than fit into a cache, in no order.
    let of = |from: u64| -> Vec<String> { (0..200_000).map(|n| secret(from + n * 7_919 % KEYS)).collect() };
    let (right, wrong) = (of(0), of(KEYS));
    // With another last digit, the checksum of none is right.
    let other = |text: &String| {
        let (rest, last) = text.split_at(text.len() - 1);
        format!("{rest}{}", if last == "0" { "1" } else { "0" })
    };
    let junk: Vec<String> = wrong.iter().map(other).collect();
    assert!(right.iter().all(|text| check(&keys, text)) && !wrong.iter().any(|text| check(&keys, text)));
    assert!(!junk.iter().any(|text| is_key(text.as_bytes())), "refused by its form");
    let mut group = c.benchmark_group("keys");
    for (name, texts) in [("right", right), ("wrong", wrong), ("junk", junk)] {
        let mut turn = texts.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| check(&keys, black_box(turn.next().expect("it goes round"))));
        });
    }
    group.finish();
}

criterion_group!(benches, keys);
criterion_main!(benches);
