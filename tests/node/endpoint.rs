//! The agent's endpoints, asked on the node.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::agent::HEALTH_PORT;
use crate::stage::{Namespace, OWN_IPS};

/// The response to a GET, with its head.
fn get(node: &Namespace, at: SocketAddr, path: &str) -> io::Result<String> {
    node.run(|| {
        let mut stream = TcpStream::connect(at)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    })
}

/// What the kubelet sees.
pub fn readiness(node: &Namespace) -> String {
    get(node, SocketAddr::new(OWN_IPS[0], HEALTH_PORT), "/readyz").unwrap_or_else(|error| error.to_string())
}

pub fn is_ready(node: &Namespace) -> bool {
    readiness(node).starts_with("HTTP/1.1 200")
}

/// The sum of all series that begin so.
pub fn metric(node: &Namespace, series: &str) -> u64 {
    let all = get(node, (Ipv4Addr::LOCALHOST, 9253).into(), "/metrics").expect("the agent counts");
    let values = all.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<u64>().expect("a count")).sum()
}
