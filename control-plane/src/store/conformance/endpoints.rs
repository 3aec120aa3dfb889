//! Cases of the last endpoints.

use super::store;
use crate::store::KeptEndpoints;

fn kept(upstream: &str, body: &[u8]) -> KeptEndpoints {
    KeptEndpoints { upstream: upstream.to_owned(), query: vec![0, 7], body: body.to_vec() }
}

pub(super) async fn the_last_endpoints_are_kept_and_make_no_revision(url: String) {
    let (one, two) = (store(&url).await, store(&url).await);
    let head = one.head().await.expect("a head");
    assert_eq!(one.endpoints().await.expect("read"), []);
    let large = vec![9; 400 << 10];
    one.keep_endpoints(vec![kept("d/b", &large), kept("d/a", b"one")], Vec::new()).await.expect("kept");
    assert_eq!(two.endpoints().await.expect("read"), [kept("d/a", b"one"), kept("d/b", &large)]);
    two.keep_endpoints(vec![kept("d/a", b"two")], vec!["d/b".into(), "d/c".into()]).await.expect("kept");
    assert_eq!(one.endpoints().await.expect("read"), [kept("d/a", b"two")]);
    assert_eq!(one.head().await.expect("a head"), head);
}
