//! Tests of `identity.rs`: what is kept, what is refused, and how a control plane is known.

use gateway_proto::identity::Subject;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{ServerName, UnixTime};
use tempfile::TempDir;

use super::*;

/// A CA of a control plane.
struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("signed").der().clone();
        Ca { certificate, issuer: Issuer::new(params, key) }
    }

    fn params(subject: &Subject, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(subject.to_string().try_into().expect("ASCII"))];
        params.extended_key_usages = vec![usage];
        params
    }

    fn server(&self, subject: &Subject, usage: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        Ca::params(subject, usage).signed_by(&key, &self.issuer).expect("signed").der().clone()
    }

    /// What a control plane answers to a request.
    fn issue(&self, ask: &Ask, subject: &Subject) -> wire::IssuedCertificate {
        let request = ask.request().expect("a request");
        let request = rcgen::CertificateSigningRequestParams::from_der(&request.into()).expect("sound");
        let params = Ca::params(subject, ExtendedKeyUsagePurpose::ClientAuth);
        let made = params.signed_by(&request.public_key, &self.issuer).expect("signed");
        wire::IssuedCertificate { chain: vec![made.der().to_vec()], roots: vec![self.certificate.to_vec()] }
    }
}

fn edge(node: &str) -> Subject {
    Subject::DataPlane { group: "edge".into(), node: node.into() }
}

struct Home {
    dir: TempDir,
    state_dir: Arc<StateDir>,
}

impl Home {
    fn new(ca: &Ca) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let state_dir = Arc::new(StateDir::open(&dir.path().join("state")).expect("opens"));
        let token = JoinToken::compose(&"x".repeat(43), &root_id(&ca.certificate));
        std::fs::write(dir.path().join("token"), token.reveal()).expect("written");
        Home { dir, state_dir }
    }

    fn open(&self, node: &str) -> Result<Passport, IdentityError> {
        let told = Told { join_token: Some(self.dir.path().join("token")), ..Told::default() };
        Passport::open(told, node, "edge", Arc::clone(&self.state_dir), Arc::default())
    }
}

#[test]
fn a_certificate_is_kept_with_its_key_and_found_again() {
    let ca = Ca::new("one");
    let home = Home::new(&ca);
    let passport = home.open("a").expect("opens");
    let now = Timestamp::now();
    assert!(!passport.is_in_force(now) && passport.renew_at().is_none());
    let ask = kept::request(&home.state_dir).expect("a key");
    let again = kept::request(&home.state_dir).expect("a key");
    assert_eq!(ask.key(), again.key(), "the same one until there is an answer");
    let issued = ca.issue(&ask, &edge("a"));
    passport.take(ask, issued).expect("taken");
    assert!(passport.is_in_force(now));
    assert_eq!(passport.trusts(), [root_id(&ca.certificate).to_vec()]);
    let other = kept::request(&home.state_dir).expect("a key");
    assert_ne!(other.key(), again.key(), "that one is used");

    // With a token that is no good any more: nobody asks for it.
    std::fs::write(home.dir.path().join("token"), "used up").expect("written");
    let found = home.open("a").expect("opens");
    assert!(found.is_in_force(now));
    assert_eq!((found.expires(), found.trusts()), (passport.expires(), passport.trusts()));
    let ended = found.expires().expect("a time");
    assert!(!found.is_in_force(ended), "at its last second");
    found.rejected();
    assert!(!found.is_in_force(now));
    for node in ["b", "A"] {
        let error = home.open(node).expect_err("another's certificate, and no token").to_string();
        assert!(error.contains("no join token"), "{error}");
    }
}

#[test]
fn what_is_issued_for_another_key_node_or_group_is_not_taken() {
    let ca = Ca::new("one");
    let home = Home::new(&ca);
    let passport = home.open("a").expect("opens");
    let ask = || passport.ask().expect("a key");
    let core = Subject::DataPlane { group: "core".into(), node: "a".into() };
    for (words, ask, issued) in [
        ("another key", ask(), ca.issue(&ask(), &edge("a"))),
        ("not for", { ask() }, ca.issue(&ask(), &edge("b"))),
        ("not for", ask(), ca.issue(&ask(), &core)),
        ("not for", ask(), ca.issue(&ask(), &Subject::ControlPlane)),
        ("no certificate", ask(), wire::IssuedCertificate::default()),
    ] {
        let error = passport.renewed(ask, issued).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(passport.renew_at().is_none());
    let roots = [b"nonsense".to_vec()];
    assert!(passport.take_roots(&roots).is_err());
    assert_eq!(passport.take_roots(&[]).expect("nothing to take").roots.len(), 0);
}

#[test]
fn a_control_plane_is_known_by_the_hash_in_the_token_or_by_its_roots_and_by_its_name() {
    let (ours, other) = (Ca::new("ours"), Ca::new("other"));
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    let name = ServerName::try_from("any.example").expect("a name");
    let roots = |ca: &Ca| root_store(std::slice::from_ref(&ca.certificate)).expect("a root");
    let pinned = ControlPlaneVerifier::pinned(root_id(&ours.certificate));
    let known = ControlPlaneVerifier::of(roots(&ours));
    let nobody = ControlPlaneVerifier::of(RootCertStore::empty());
    let check =
        |verifier: &ControlPlaneVerifier, leaf: &CertificateDer<'_>, shown: &[CertificateDer<'static>]| {
            verifier.verify_server_cert(leaf, shown, &name, &[], UnixTime::now()).is_ok()
        };
    let good = ours.server(&Subject::ControlPlane, server.clone());
    let shown = std::slice::from_ref(&ours.certificate);
    assert!(check(&pinned, &good, shown) && check(&known, &good, &[]));
    assert!(!check(&pinned, &good, &[]), "the root has to be shown");
    assert!(!check(&nobody, &good, shown), "what is shown alone proves nothing");

    let foreign = other.server(&Subject::ControlPlane, server.clone());
    let both = [ours.certificate.clone(), other.certificate.clone()];
    let plane = ours.server(&edge("a"), server);
    let client = ours.server(&Subject::ControlPlane, ExtendedKeyUsagePurpose::ClientAuth);
    for (why, leaf) in [
        ("another CA", &foreign),
        ("a data plane", &plane),
        ("a client's", &client),
        ("no certificate", &b"x"[..].into()),
    ] {
        assert!(!check(&pinned, leaf, &both) && !check(&known, leaf, &both), "{why}");
    }
}
