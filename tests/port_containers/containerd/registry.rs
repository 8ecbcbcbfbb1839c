//! A registry on loopback that gives the images of `image.rs` (the pull half of
//! github.com/opencontainers/distribution-spec, spec.md).

use super::image::{Layout, MANIFEST};
use super::machine;
use nix::sys::socket::{Shutdown, shutdown};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

pub struct Registry {
    address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

const AUTH: &str = "authorization";

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    /// How often somebody asked which manifest a tag is.
    resolved: AtomicUsize,
    /// What a caller's `Authorization` has to say, if anything.
    guard: Option<String>,
}

impl Registry {
    /// The machine's images, in the calling thread's network namespace.
    pub fn start() -> Registry {
        Registry::of(machine::images())
    }

    /// One that answers only who says this (RFC 7617).
    pub fn guarded(authorization: &str) -> Registry {
        Registry::with(machine::images(), Some(authorization.to_owned()))
    }

    pub fn of(images: Layout) -> Registry {
        Registry::with(images, None)
    }

    fn with(images: Layout, guard: Option<String>) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { guard, ..Shared::default() });
        let serving = Arc::clone(&shared);
        let accepts = listener.try_clone().expect("a socket");
        let serve = move || {
            for caller in accepts.incoming() {
                if serving.over.load(Ordering::Relaxed) {
                    return;
                }
                // A caller that goes away is no matter of ours.
                let _ = caller.and_then(|caller| answer(caller, &images, &serving));
            }
        };
        Registry { address, listener, shared, thread: Some(thread::spawn(serve)) }
    }

    /// By which name a runtime finds an image here.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}:1", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn resolved(&self) -> usize {
        self.shared.resolved.load(Ordering::Relaxed)
    }
}

impl Drop for Registry {
    /// The port is closed when this is done.
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Nobody can connect to it from another network, but who accepts is woken by this.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(caller: TcpStream, images: &Layout, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(&caller).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut said = None;
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        let header = line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case(AUTH));
        said = header.map(|(_, value)| value.to_owned()).or(said);
    }
    if shared.guard.is_some() && said != shared.guard {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"\r\n\
                       Content-Length: 0\r\nConnection: close\r\n\r\n";
        return (&caller).write_all(refusal.as_bytes());
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<_> = path.trim_start_matches("/v2/").split('/').collect();
    let found = match parts[..] {
        [.., "manifests", digest] if digest.contains(':') => Some((MANIFEST, digest)),
        // Of each image there is one, whatever its tag.
        [.., name, "manifests", _] => {
            shared.resolved.fetch_add(1, Ordering::Relaxed);
            images.manifest(name).map(|digest| (MANIFEST, digest))
        }
        [.., "blobs", digest] => Some(("application/octet-stream", digest)),
        _ => None,
    };
    let found = found.and_then(|(kind, digest)| Some((kind, digest, images.blob(digest)?)));
    let mut to = &caller;
    let Some((kind, digest, content)) = found else {
        return to.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    write!(
        to,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Docker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n",
        content.len()
    )?;
    to.write_all(if method == "HEAD" { &[] } else { content })
}
