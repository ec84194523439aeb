//! The yardstick: a server that sends every datagram back and does nothing else, 32 at a time.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use super::client::BATCH;

/// The first argument that makes this program the echo.
pub const COMMAND: &str = "echo";

/// Echoes on 127.0.0.1 until the process is ended.
pub fn serve(port: u16) -> ExitCode {
    match run(port) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(port: u16) -> io::Result<std::convert::Infallible> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    let fd = socket.as_raw_fd();
    let mut incoming = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut outgoing = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut buffers = vec![[0_u8; 512]; BATCH];
    let (mut lengths, mut peers) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    loop {
        lengths.clear();
        peers.clear();
        {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers.iter_mut().map(|it| [IoSliceMut::new(it)]).collect();
            for message in recvmmsg(fd, &mut incoming, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)? {
                lengths.push(message.bytes);
                peers.push(message.address);
            }
        }
        let answers = buffers.iter().zip(&lengths);
        let slices: Vec<[IoSlice<'_>; 1]> =
            answers.map(|(buffer, length)| [IoSlice::new(&buffer[..*length])]).collect();
        // What does not leave is counted as lost by the client.
        let _ = sendmmsg(fd, &mut outgoing, slices.iter(), &peers, [], MsgFlags::empty());
    }
}
