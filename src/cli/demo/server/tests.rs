//! What the servers of the demo answer, asked by a stranger.

use std::io;
use std::time::Duration;

use hickory_proto::rr::RecordType;

use super::super::names;
use super::{Manner, Server};
use crate::cli::client::{AskError, Outcome, Question, Reply};

fn ask(server: &Server, kind: RecordType, name: &str) -> Result<Reply, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(Question::new(kind, name).ask(server.address()))
}

fn data(server: &Server, kind: RecordType, name: &str) -> Outcome {
    ask(server, kind, name).expect("a reply").result
}

#[test]
fn the_cluster_dns_answers_every_kind_of_kubernetes_name() {
    let server = Server::start(names::cluster_dns()).expect("a server");
    let one = |data: &str| Outcome::Data(vec![data.to_owned()]);
    assert_eq!(data(&server, RecordType::A, "kubernetes.default.svc.cluster.local"), one("10.96.0.1"));
    assert_eq!(
        data(&server, RecordType::A, "web.default.svc.cluster.local").to_string(),
        "10.244.1.11, 10.244.2.12, 10.244.3.13"
    );
    assert_eq!(data(&server, RecordType::A, "web-1.web.default.svc.cluster.local"), one("10.244.2.12"));
    assert_eq!(
        data(&server, RecordType::PTR, "10.0.96.10.in-addr.arpa"),
        one("kube-dns.kube-system.svc.cluster.local")
    );
    assert_eq!(
        data(&server, RecordType::SRV, "_https._tcp.kubernetes.default.svc.cluster.local"),
        one("0 33 443 kubernetes.default.svc.cluster.local")
    );
    assert_eq!(
        data(&server, RecordType::A, "files.default.svc.cluster.local").to_string(),
        "192.0.2.21, alias of files.example.com"
    );
    assert_eq!(data(&server, RecordType::AAAA, "shop.default.svc.cluster.local"), Outcome::NoData);
    assert_eq!(data(&server, RecordType::A, "nobody.default.svc.cluster.local"), Outcome::NxDomain);
    assert_eq!(data(&server, RecordType::AAAA, "example.com"), one("2001:db8::80"));
    assert_eq!(data(&server, RecordType::MX, "example.com"), one("10 mail.example.com"));
    assert_eq!(
        data(&server, RecordType::HTTPS, "example.com"),
        one("alpn=h2,h3 ipv4hint=192.0.2.80 ipv6hint=2001:db8::80")
    );
}

#[test]
fn technitium_knows_its_hosts_both_ways_and_nothing_else() {
    let server = Server::start(names::technitium()).expect("a server");
    let one = |data: &str| Outcome::Data(vec![data.to_owned()]);
    assert_eq!(data(&server, RecordType::A, "idrac.viktorbarzin.lan"), one("192.168.1.4"));
    assert_eq!(data(&server, RecordType::PTR, "4.1.168.192.in-addr.arpa"), one("idrac.viktorbarzin.lan"));
    assert!(matches!(data(&server, RecordType::A, "example.com"), Outcome::Failure(_)));
}

#[test]
fn queries_are_counted_by_name_in_any_letter_case_and_probes_are_not() {
    let server = Server::start(names::technitium()).expect("a server");
    data(&server, RecordType::A, "idrac.viktorbarzin.lan");
    data(&server, RecordType::AAAA, "IDRAC.viktorbarzin.LAN");
    data(&server, RecordType::NS, ".");
    assert_eq!(server.queries_for(&Question::new(RecordType::A, "idrac.viktorbarzin.lan").name), 2);
    assert_eq!(server.queries(), 2);
}

#[test]
fn a_slow_server_answers_late_and_a_stopped_one_has_closed_its_port() {
    let mut server = Server::start(names::technitium()).expect("a server");
    let delay = Duration::from_millis(30);
    server.behave(Manner::Slow(delay));
    assert!(ask(&server, RecordType::A, "nas.viktorbarzin.lan").expect("a reply").took >= delay);
    server.stop();
    let refused = ask(&server, RecordType::A, "nas.viktorbarzin.lan").expect_err("nobody is there");
    assert!(matches!(refused, AskError::Socket(error) if error.kind() == io::ErrorKind::ConnectionRefused));
}

#[test]
fn a_silent_server_hears_the_question_and_says_nothing() {
    let server = Server::start(names::technitium()).expect("a server");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let question = Question::new(RecordType::A, "nas.viktorbarzin.lan");
    runtime.block_on(async {
        server.behave(Manner::Silent);
        let unheard = tokio::spawn({
            let (question, address) = (question.clone(), server.address());
            async move { question.ask(address).await }
        });
        while server.queries() == 0 {
            tokio::task::yield_now().await;
        }
        // Its answer, were there one, would be underway before this one.
        server.behave(Manner::Prompt);
        question.ask(server.address()).await.expect("a reply");
        assert!(!unheard.is_finished());
    });
}
