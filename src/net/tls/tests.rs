//! Which certificates are believed.

use std::io::Write;
use std::net::Ipv4Addr;
use std::rc::Rc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::net::stream::{Limits, StreamError, StreamPool};
use crate::net::testing::{PATIENCE, Server, asked, dice, on_worker, query, serve_one, within};
use crate::wire::{Name, Response, Transport};

#[test]
fn server_with_the_right_name_is_asked() {
    let response = exchange("dns.example.", "dns.example").expect("answered");
    assert!(response.octets().ends_with(&[192, 0, 2, 1]));
}

#[test]
fn server_with_another_name_is_not_trusted() {
    let error = exchange("dns.example.", "other.example").expect_err("not trusted");
    assert!(matches!(error, StreamError::Handshake), "{error:?}");
}

#[test]
fn server_that_the_public_web_does_not_know_is_not_trusted() {
    let server = certified("dns.example");
    let tls = Tls::new(&upstream(Some("dns.example"), None)).expect("right").expect("TLS");
    let error = ask(&server, &tls).expect_err("not trusted");
    assert!(matches!(error, StreamError::Handshake), "{error:?}");
}

#[test]
fn mistakes_are_named() {
    let empty = file(b"");
    let broken = file(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let no_certificate = file(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let name = Some("dns.example");
    for (upstream, expected) in [
        (upstream(None, None), "name_missing"),
        (upstream(Some("not a name"), None), "name_invalid"),
        (upstream(name, Some(Path::new("/nowhere"))), "ca_unreadable"),
        (upstream(name, Some(empty.path())), "ca_empty"),
        (upstream(name, Some(broken.path())), "ca_not_pem"),
        (upstream(name, Some(no_certificate.path())), "ca_invalid"),
    ] {
        let error = Tls::new(&upstream).expect_err(expected);
        assert_eq!(error.label(), expected, "{error}");
    }
}

#[test]
fn upstream_without_tls_has_none() {
    let upstream = plan::Upstream { protocol: plan::Protocol::Udp, ..upstream(None, None) };
    assert!(Tls::new(&upstream).expect("right").is_none());
}

fn certified(name: &str) -> CertifiedKey<rcgen::KeyPair> {
    generate_simple_self_signed([name.to_owned()]).expect("a certificate can be made")
}

/// Asks a server certified as `theirs`, whose certificate is our root, for the name `ours`.
fn exchange(ours: &str, theirs: &str) -> Result<Response, StreamError> {
    let server = certified(theirs);
    let roots = file(server.cert.pem().as_bytes());
    let upstream = upstream(Some(ours.trim_end_matches('.')), Some(roots.path()));
    let tls = Tls::new(&upstream).expect("right").expect("TLS");
    ask(&server, &tls)
}

fn ask(certified: &CertifiedKey<rcgen::KeyPair>, tls: &Tls) -> Result<Response, StreamError> {
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has a cipher suite for TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("key and certificate fit");
    on_worker(async {
        let server = Server::start().await;
        let address = server.address();
        spawn_local(async move {
            let stream = server.accept().await;
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                serve_one(&mut stream, Ipv4Addr::new(192, 0, 2, 1)).await;
            }
        });
        let pool = StreamPool::new(dice(), Limits::default(), Rc::default());
        let query = query(0);
        within(PATIENCE, pool.ask(address, Some(tls), &asked(&query, Transport::Tcp))).await
    })
}

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file can be made");
    file.write_all(content).expect("a file can be written");
    file
}

fn upstream(tls_name: Option<&str>, tls_ca: Option<&Path>) -> plan::Upstream {
    plan::Upstream {
        name: "test".into(),
        members: plan::Members::Servers(vec![]),
        choice: plan::Choice::Sequential,
        protocol: plan::Protocol::Tls,
        tls_name: tls_name.map(Into::into),
        tls_ca: tls_ca.map(Into::into),
        health_check: plan::HealthCheck {
            interval: std::time::Duration::from_secs(5),
            max_fails: 2,
            name: Name::root(),
        },
        random_case: false,
    }
}
