//! Tests of `identity.rs`: the CA on a store, without sockets and without waiting.

use std::sync::atomic::{AtomicUsize, Ordering};

use gateway_proto::admin::Role;
use gateway_proto::identity::{Certificate, JoinToken};
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::secrets::{MasterKey, MasterKeys};
use crate::store::{self, TokenError};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn now() -> Timestamp {
    "2026-11-21T22:00:00Z".parse().expect("a time")
}

fn settings() -> Settings {
    Settings { lifetime: DAY, own: None, client_roots: Vec::new() }
}

async fn new_store(directory: &std::path::Path) -> (Arc<dyn Store>, Arc<Vault>) {
    let (_, token) = crate::auth::new_token("admin", Role::Admin, Vec::new(), None);
    let url = format!("sqlite://{}/gateway.db", directory.display());
    let store = store::open(&url, &token).await.expect("opens").store;
    let (vault, record) = Vault::create(&MasterKeys::from(MasterKey::generate()));
    store.create_master(record).await.expect("answers");
    (store, Arc::new(vault))
}

async fn authority(directory: &std::path::Path) -> Arc<Authority> {
    let (store, vault) = new_store(directory).await;
    Authority::open(store, vault, settings(), now()).await.expect("opens")
}

fn audit() -> AuditRecord {
    AuditRecord {
        at: now(),
        who: "ann".into(),
        from: "192.0.2.1".into(),
        action: "test".into(),
        object: String::new(),
        status: 200,
    }
}

async fn token(authority: &Authority, name: &str, uses: u32) -> Result<JoinToken, TokenError> {
    let (token, record) =
        authority.new_join_token(name.into(), "edge".into(), uses, SignedDuration::from_hours(1), now());
    authority.store.create_join_token(record, audit()).await.map(|()| token)
}

fn wish(token: &JoinToken, node: &str, group: &str, key: &KeyPair) -> wire::EnrollRequest {
    let request = CertificateParams::default().serialize_request(key).expect("a request");
    wire::EnrollRequest {
        token: token.reveal().to_owned(),
        node: node.into(),
        group: group.into(),
        request: request.der().to_vec(),
    }
}

async fn enroll(
    authority: &Authority,
    wish: &wire::EnrollRequest,
    at: Timestamp,
) -> Result<wire::IssuedCertificate, JoinRefused> {
    let known = authority.known(wish, at).await?;
    authority.enroll(known, wish, "192.0.2.1".into(), at).await.map(|(issued, _)| issued)
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn peer(authority: &Authority, issued: &wire::IssuedCertificate) -> Peer {
    authority.trust().peer(&issued.chain[0].clone().into()).expect("a certificate")
}

/// Data planes of which so many do not have the next root.
struct Lacking(AtomicUsize);

impl Fleet for Lacking {
    async fn lacking(&self, _: &str) -> Result<Vec<String>, StoreError> {
        Ok((0..self.0.load(Ordering::Relaxed)).map(|n| format!("dp-{n}")).collect())
    }
}

#[tokio::test]
async fn replicas_that_start_at_once_have_one_ca_and_its_key_is_sealed() {
    let directory = tempfile::tempdir().expect("a folder");
    let (store, vault) = new_store(directory.path()).await;
    let open = || Authority::open(Arc::clone(&store), Arc::clone(&vault), settings(), now());
    let opened = futures_util::future::join_all((0..4).map(|_| open())).await;
    let ids: Vec<_> = opened.iter().map(|it| it.as_ref().expect("opens").trust().active().id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    let record = store.identities().await.expect("answers").authorities.remove(0);
    let key = vault.open_authority(&record.id, &record.key).expect("sealed with the master key");
    assert!(!record.key.value.windows(32).any(|window| key.windows(32).any(|part| part == window)));

    let (stranger, _) = Vault::create(&MasterKeys::from(MasterKey::generate()));
    let broken = Trust::new(store.identities().await.expect("answers"), &stranger, &settings(), now());
    assert!(matches!(broken, Err(IdentityError::Sealed)), "{broken:?}");
}

#[tokio::test]
async fn a_token_leads_to_a_certificate_of_its_group_once_and_what_is_no_good_is_told_why() {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = authority(directory.path()).await;
    let good = token(&authority, "edge", 1).await.expect("stored");
    assert_eq!(*good.root(), authority.trust().active().id);
    let pair = key();
    let enroll = async |wish: wire::EnrollRequest, at| enroll(&authority, &wish, at).await;

    let other = enroll(wish(&good, "a", "core", &pair), now()).await.expect_err("another group");
    assert!(other.to_string().contains("--group edge"), "{other}");
    let late = enroll(wish(&good, "a", "edge", &pair), now() + SignedDuration::from_hours(1)).await;
    assert!(matches!(late, Err(JoinRefused::Expired(_))), "{late:?}");
    let mut forged = wish(&good, "a", "edge", &pair);
    forged.request[60] ^= 1;
    assert!(matches!(enroll(forged, now()).await, Err(JoinRefused::Request(_))));
    let nameless = enroll(wish(&good, "a/b", "edge", &pair), now()).await;
    assert!(matches!(nameless, Err(JoinRefused::Name)));

    let issued = enroll(wish(&good, "a", "edge", &pair), now()).await.expect("good");
    let shown = peer(&authority, &issued);
    assert_eq!(shown.subject, Some(Subject::DataPlane { group: "edge".into(), node: "a".into() }));
    assert_eq!((shown.root, shown.expires), (Some(*good.root()), now() + DAY));
    assert_eq!(issued.roots, [authority.trust().active().certificate.to_vec()]);
    enroll(wish(&good, "a", "edge", &pair), now()).await.expect("the answer may have got lost");
    let replayed = enroll(wish(&good, "a", "edge", &key()), now()).await;
    assert!(matches!(replayed, Err(JoinRefused::UsedUp)), "{replayed:?}");

    let foreign = JoinToken::compose(&"x".repeat(43), good.root());
    let unknown = enroll(wish(&foreign, "a", "edge", &key()), now()).await;
    assert!(matches!(unknown, Err(JoinRefused::Unknown)), "{unknown:?}");
    let mut typo = wish(&good, "a", "edge", &key());
    typo.token.pop();
    let refused = enroll(typo, now()).await.expect_err("a typing error").to_string();
    assert!(refused.contains("checksum") && !refused.contains(good.reveal()), "{refused}");
}

#[tokio::test]
async fn a_certificate_is_good_for_its_node_group_and_time_and_until_it_is_revoked() {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = authority(directory.path()).await;
    let token = token(&authority, "edge", 9).await.expect("stored");
    let join = async |at| {
        let issued = enroll(&authority, &wish(&token, "a", "edge", &key()), at).await;
        peer(&authority, &issued.expect("good"))
    };
    let first = join(now()).await;
    assert_eq!(first.is("a", "edge"), Ok(()));
    for (node, group) in [("b", "edge"), ("a", "core"), ("A", "edge"), ("", "")] {
        assert!(matches!(first.is(node, group), Err(Unwelcome::Other { .. })), "{node} {group}");
    }
    assert_eq!(first.check(&authority.trust(), now() + DAY - SignedDuration::from_secs(1)), Ok(()));
    let over = first.check(&authority.trust(), now() + DAY);
    assert_eq!(over, Err(Unwelcome::Expired(now() + DAY)));

    let stolen = now() + SignedDuration::from_secs(10);
    authority.revoke("a", false, audit(), stolen).await.expect("stored");
    let slow_clock = stolen - SignedDuration::from_secs(5);
    authority.revoke("a", false, audit(), slow_clock).await.expect("stored");
    let revoked = async |node| authority.hold(node, "edge", stolen).await.expect("read");
    assert_eq!(revoked("a").await, Some(stolen), "it never moves back");
    assert_eq!(revoked("b").await, None);
    assert_eq!(first.check(&authority.trust(), stolen), Err(Unwelcome::Revoked(stolen)));
    let subject = first.subject.clone().expect("named");
    let next = CertificateParams::default().serialize_request(&key()).expect("a request");
    let renewed = authority.renew(next.der(), &subject, Some(stolen), stolen).expect("issued");
    assert_eq!(
        peer(&authority, &renewed).check(&authority.trust(), stolen),
        Ok(()),
        "what comes after is good"
    );
    assert_eq!(join(stolen).await.check(&authority.trust(), stolen), Ok(()));

    let control = Peer { subject: Some(Subject::ControlPlane), ..first.clone() };
    let nobody = Peer { subject: None, ..first };
    for peer in [control, nobody] {
        assert_eq!(peer.check(&authority.trust(), now()), Err(Unwelcome::Nobody));
        assert_eq!(peer.is("a", "edge"), Err(Unwelcome::Nobody));
    }
}

#[tokio::test]
async fn a_token_does_not_lead_to_the_name_of_another_groups_data_plane() {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = authority(directory.path()).await;
    let edge = token(&authority, "edge", 9).await.expect("stored");
    let (core, record) =
        authority.new_join_token("core".into(), "core".into(), 9, SignedDuration::from_hours(99), now());
    authority.store.create_join_token(record, audit()).await.expect("stored");
    let join = async |token, group, at| enroll(&authority, &wish(token, "a", group, &key()), at).await;
    join(&core, "core", now()).await.expect("good");
    let refused = join(&edge, "edge", now()).await.expect_err("it is core's");
    let text = refused.to_string();
    assert!(
        refused.is_of_a_token() && text.contains("group \"core\"") && text.contains("nodes revoke a"),
        "{text}"
    );
    assert_eq!(authority.store.join_tokens().await.expect("answers")[1].used, 0, "nothing was used up");

    // It is renewed, and keeps its name for as long; then it is free, or when it is revoked.
    authority.hold("a", "core", now() + DAY / 2).await.expect("answers");
    let late = now() + DAY;
    assert!(matches!(join(&edge, "edge", late).await, Err(JoinRefused::Expired(_))));
    let (edge, record) =
        authority.new_join_token("edge-2".into(), "edge".into(), 9, SignedDuration::from_hours(99), now());
    authority.store.create_join_token(record, audit()).await.expect("stored");
    assert!(matches!(join(&edge, "edge", late).await, Err(JoinRefused::NameHeld { .. })));
    join(&edge, "edge", now() + DAY + DAY / 2).await.expect("nobody has it");
    assert!(matches!(join(&core, "core", late).await, Err(JoinRefused::NameHeld { .. })));
    authority.revoke("a", false, audit(), late).await.expect("stored");
    join(&core, "core", late).await.expect("free");
    let renewal = authority.hold("a", "edge", late).await;
    assert!(matches!(renewal, Err(JoinRefused::NameHeld { .. })), "{renewal:?}");
}

#[tokio::test]
async fn what_is_issued_right_after_a_revocation_says_from_when_it_is_good() {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = authority(directory.path()).await;
    let token = token(&authority, "edge", 2).await.expect("stored");
    let wish = wish(&token, "a", "edge", &key());
    assert_eq!(authority.revoke("a", false, audit(), now()).await.expect("answers"), Revoked::Unknown);
    assert_eq!(authority.revoke("a", true, audit(), now()).await.expect("stored"), Revoked::Yes);
    let known = authority.known(&wish, now()).await.expect("there is one");
    let (issued, from) = authority.enroll(known, &wish, "x".into(), now()).await.expect("good");
    assert_eq!(from, now() + SignedDuration::from_secs(1));
    assert_eq!(peer(&authority, &issued).valid_from, from);
}

#[tokio::test]
async fn one_ca_takes_the_place_of_another_step_by_step() {
    let directory = tempfile::tempdir().expect("a folder");
    let authority = authority(directory.path()).await;
    let old = authority.trust().active().id;
    let token = token(&authority, "edge", 2).await.expect("stored");
    let issued = enroll(&authority, &wish(&token, "a", "edge", &key()), now()).await.expect("good");
    let before = peer(&authority, &issued);

    let next = authority.rotate(audit(), now()).await.expect("begun");
    assert!(matches!(authority.rotate(audit(), now()).await, Err(RotateError::Underway)));
    let fleet = Lacking(AtomicUsize::new(1));
    let later = now() + SignedDuration::from_mins(1);
    let waits = authority.advance(&fleet, later).await.expect("answers").expect("it waits");
    assert!(waits.ends_with("yet: dp-0"), "{waits}");
    assert_eq!(authority.trust().active().id, old, "nothing is signed with what nobody has");
    assert!(authority.trust().trusts(Some(&next)));

    fleet.0.store(0, Ordering::Relaxed);
    authority.advance(&fleet, later).await.expect("answers");
    let trust = authority.trust();
    assert_eq!(trust.active().id, next);
    assert_eq!(before.check(&trust, later), Ok(()), "what the old one signed is good as long as it lasts");
    let issued = enroll(&authority, &wish(&token, "b", "edge", &key()), later).await.expect("good");
    assert_eq!((peer(&authority, &issued).root, issued.roots.len()), (Some(next), 2));
    assert!(matches!(authority.rotate(audit(), later).await, Err(RotateError::Underway)));

    let ended = later + DAY + SignedDuration::from_mins(5);
    assert!(
        authority.advance(&fleet, ended - SignedDuration::from_secs(1)).await.expect("answers").is_some()
    );
    authority.advance(&fleet, ended).await.expect("answers");
    let trust = authority.trust();
    assert_eq!(trust.roots().iter().map(|root| root.id).collect::<Vec<_>>(), [next]);
    let renewed = Peer { expires: ended + DAY, ..before };
    assert_eq!(renewed.check(&trust, ended), Err(Unwelcome::RootGone));
    let unknown = Peer { root: None, ..renewed };
    assert_eq!(unknown.check(&trust, ended), Err(Unwelcome::RootGone), "there is no --tls-client-ca");
}

#[tokio::test]
async fn who_knows_only_the_old_root_can_check_what_the_new_one_signs_and_strangers_cannot() {
    use rustls::client::WebPkiServerVerifier;
    use rustls::pki_types::{ServerName, UnixTime};
    let directory = tempfile::tempdir().expect("a folder");
    let authority = authority(directory.path()).await;
    let old = authority.trust().active().certificate.clone();
    authority.rotate(audit(), now()).await.expect("begun");
    authority.advance(&Lacking(AtomicUsize::new(0)), now() + DAY).await.expect("activated");
    let trust = authority.trust();
    let roots = trust.roots().to_vec();
    let validity = Validity::new(now(), DAY, None);
    let (chain, _) = trust::server_chain(&roots, trust.signer(), validity).expect("signed");
    let read = Certificate::read(&chain[0]).expect("a certificate");
    assert_eq!(read.subject, Some(Subject::ControlPlane));

    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now().as_second()).expect("late")));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let check = |known: CertificateDer<'static>| {
        let mut store = rustls::RootCertStore::empty();
        store.add(known).expect("a root");
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider)).build();
        let name = ServerName::try_from("control-plane").expect("a name");
        use rustls::client::danger::ServerCertVerifier as _;
        verifier.expect("a verifier").verify_server_cert(&chain[0], &chain[1..], &name, &[], at)
    };
    // There is no DNS name in it: that the chain is good shows in that being the complaint.
    let unnamed = |error: rustls::Error| format!("{error:?}").contains("NotValidForName");
    assert!(unnamed(check(old).expect_err("no such name")));
    assert!(unnamed(check(trust.active().certificate.clone()).expect_err("no such name")));
    let stranger = NewRoot::make(now()).expect("made").certificate;
    let error = check(stranger.into()).expect_err("unknown");
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
}
