//! The control socket: what changes the agent's state, for those who may open a file of mode 0600.
//!
//! The promise: garbage gets an error line; a client that never writes is dropped after 2 s, one that never reads after
//! 5 s; 16 are served at once; nothing a client does or fails to do stops the agent. The socket file is
//! replaced only if nobody answers behind it, and removed at the end if it is still ours.
//!
//! One request a connection, one line of JSON each way, rows before the end:
//!
//! ```text
//! {"do":"cache.dump","zone":"cluster.local","type":"A","limit":10}   ─► a row a line, then {"done":true,"rows":2}
//! {"do":"cache.flush","name":"a.test"}                               ─► {"done":true,"flushed":1}
//! {"do":"reload"}                                                    ─► {"done":true,"message":"…"}
//! {"do":"log","level":"debug"}                                       ─► {"done":true}
//! anything else                                                      ─► {"error":"…"}
//! ```
//!
//! Read first: unix(7), on the permissions of sockets.

use std::convert::Infallible;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::dump::{Field, Filter, Source};

pub mod status;

/// Where the socket file is unless the configuration says otherwise.
pub const PATH: &str = "/run/nodens/control.sock";
/// Clients served at once; more wait in the kernel's queue.
pub const CLIENTS: usize = 16;
/// Octets of the longest request: two names of 255 octets, every one of them escaped, fit twice.
pub const REQUEST: usize = 8 * 1024;
/// Time to send the request.
pub const REQUEST_TIME: Duration = Duration::from_secs(2);
/// Time a client may let us wait until it reads on.
pub const READ_TIME: Duration = Duration::from_secs(5);
/// Time between two attempts to get a socket file that somebody answers behind.
const RETRY: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, as it does when descriptors run out: no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Clients the kernel keeps for us until we accept them.
const BACKLOG: i32 = 64;
/// Bytes gathered before they are written.
const CHUNK: usize = 8 * 1024;

/// What clients can have done.
pub struct Handlers {
    /// The cache, entry by entry.
    pub dump: Source,
    /// Forgets the entries a filter means; returns how many.
    pub flush: Box<dyn Fn(&Filter) -> u64 + Send + Sync>,
    /// Reads the configuration again; may take its time. What is in force then, or why it was refused.
    pub reload: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// Sets the log level; the reason if there is no such level.
    pub log_level: Box<SetLevel>,
    /// How the agent stands.
    pub status: Box<dyn Fn() -> status::Status + Send + Sync>,
}

type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// A socket file we listen behind. Dropping it removes the file, unless it has become another's.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

/// What a client asks for, as it is written on the line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "do")]
pub enum Request {
    /// Show entries.
    #[serde(rename = "cache.dump")]
    Dump(Which),
    /// Forget entries.
    #[serde(rename = "cache.flush")]
    Flush(Which),
    /// Change the log level.
    #[serde(rename = "log")]
    Log {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: String,
    },
    /// Read the configuration again.
    #[serde(rename = "reload")]
    Reload,
    /// Say how the agent stands.
    #[serde(rename = "status")]
    Status,
}

/// A [`Filter`] in text, as it is written on the line.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// This name and all below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// This name alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// This type alone.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub qtype: Option<String>,
    /// At most so many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Serves the socket file `path` for ever.
///
/// Tells `report` when it listens, and each new reason why it does not; it tries again every 5 s. Dropping the future
/// removes the file.
pub async fn keep_serving(
    path: &Path,
    handlers: Arc<Handlers>,
    mut report: impl FnMut(Result<(), io::Error>),
) -> Infallible {
    let mut told = None;
    loop {
        match Listener::bind(path) {
            Ok(listener) => {
                report(Ok(()));
                return listener.serve(handlers).await;
            }
            Err(error) if told == Some(error.kind()) => {}
            Err(error) => {
                told = Some(error.kind());
                report(Err(error));
            }
        }
        sleep(RETRY).await;
    }
}

// === impl Listener ===

impl Listener {
    /// Listens behind the socket file `path`, mode 0600 from its first moment. Its folder is made if it is missing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if somebody answers behind the file, or it is no socket; else those of the kernel.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = match open(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                fs::remove_file(path)?;
                open(path)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
                open(path)?
            }
            outcome => outcome?,
        };
        socket.listen(BACKLOG)?;
        let socket = UnixListener::from_std(OwnedFd::from(socket).into())?;
        Ok(Self { socket, path: path.to_owned(), file: identity(path)? })
    }

    /// Serves clients for ever.
    pub async fn serve(self, handlers: Arc<Handlers>) -> Infallible {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    let handlers = Arc::clone(&handlers);
                    tokio::spawn(async move {
                        // Whatever ended it, it is over, and nobody here could mend it.
                        let _ = converse(stream, handlers).await;
                        drop(place);
                    });
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // If it stays, the next agent finds nobody behind it and replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket bound to `path`, mode 0600.
fn open(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The mode of an unbound socket becomes that of its file, so there is no moment in which others could connect.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Whether `path` is a socket with nobody behind it.
fn is_abandoned(path: &Path) -> bool {
    let probe = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Somebody with a full queue is somebody: EAGAIN, not a wait.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    let refused = probe().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    refused && fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// One request, one response.
async fn converse(mut stream: UnixStream, handlers: Arc<Handlers>) -> io::Result<()> {
    let line = match timeout(REQUEST_TIME, read_line(&mut stream)).await {
        Ok(line) => line?,
        Err(_) => Err("no request within 2 s".to_owned()),
    };
    let request =
        line.and_then(|line| serde_json::from_slice(&line).map_err(|error| format!("not understood: {error}")));
    let end = match request {
        Ok(Request::Dump(which)) => match which.filter() {
            Ok(filter) => json!({ "done": true, "rows": send_rows(&mut stream, handlers.dump.open(&filter)).await? }),
            Err(why) => json!({ "error": why }),
        },
        Ok(Request::Flush(which)) => match which.filter() {
            Ok(filter) => json!({ "done": true, "flushed": (handlers.flush)(&filter) }),
            Err(why) => json!({ "error": why }),
        },
        Ok(Request::Log { level }) => match (handlers.log_level)(&level) {
            Ok(()) => json!({ "done": true }),
            Err(why) => json!({ "error": why }),
        },
        Ok(Request::Reload) => match tokio::task::spawn_blocking(move || (handlers.reload)()).await {
            Ok(Ok(message)) => json!({ "done": true, "message": message }),
            Ok(Err(why)) => json!({ "error": why }),
            Err(_) => json!({ "error": "the reload failed; the log says how" }),
        },
        Ok(Request::Status) => json!({ "done": true, "status": (handlers.status)() }),
        Err(why) => json!({ "error": why }),
    };
    send(&mut stream, format!("{end}\n").as_bytes()).await
}

/// The octets up to the first line feed or the end; the inner error is one to tell the client.
async fn read_line(stream: &mut UnixStream) -> io::Result<Result<Vec<u8>, String>> {
    let mut line = Vec::new();
    loop {
        let mut some = [0; 1024];
        let length = stream.read(&mut some).await?;
        let end = some[..length].iter().position(|octet| *octet == b'\n');
        line.extend_from_slice(&some[..end.unwrap_or(length)]);
        if line.len() > REQUEST {
            return Ok(Err("longer than 8 KiB".to_owned()));
        }
        if end.is_some() || length == 0 {
            return Ok(Ok(line));
        }
    }
}

/// Sends each of `rows` on a line, pulled as the client reads. Returns how many.
async fn send_rows(stream: &mut UnixStream, rows: impl Iterator<Item: Serialize> + Send) -> io::Result<u64> {
    let mut chunk = Vec::with_capacity(CHUNK + CHUNK / 4);
    let mut count = 0;
    for row in rows {
        serde_json::to_writer(&mut chunk, &row).expect("a row is plain data, and a Vec takes every write");
        chunk.push(b'\n');
        count += 1;
        if chunk.len() >= CHUNK {
            send(stream, &chunk).await?;
            chunk.clear();
            // A client that reads as fast as we write must not keep the thread for itself.
            tokio::task::yield_now().await;
        }
    }
    send(stream, &chunk).await?;
    Ok(count)
}

/// Writes `octets`; an error if the client lets us wait for more than 5 s.
async fn send(stream: &mut UnixStream, octets: &[u8]) -> io::Result<()> {
    timeout(READ_TIME, stream.write_all(octets)).await?
}

// === impl Which ===

impl Which {
    /// The filter this text means; the reason if it means none.
    fn filter(&self) -> Result<Filter, String> {
        let mut filter = Filter { limit: self.limit, ..Filter::default() };
        for (field, text) in [(Field::Zone, &self.zone), (Field::Name, &self.name), (Field::Type, &self.qtype)] {
            if let Some(text) = text {
                filter.set(field, text).map_err(|bad| bad.to_string())?;
            }
        }
        Ok(filter)
    }
}

// === impl Handlers ===

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handlers")
    }
}

#[cfg(test)]
mod tests;
