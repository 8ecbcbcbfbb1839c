//! A cluster whose control plane runs elsewhere: the `kubesim server` whose data directory this is.
//! Its keys make the lab's components known to it; where it listens, its administrator's kubeconfig
//! says.
//!
//! It listens in this machine's own network, and the lab's nodes are in networks of their own, on a
//! modelled wire. So the machine that would be the API server's hands its connections on
//! (`node/relay.rs`): to the other nodes the API is where the scenario has it, with that machine's
//! address, cable and faults.

use crate::pki::{self, LEAF, Pki};
use std::fs;
use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// The server is on this machine.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the lab takes from it.
pub struct Joined {
    pub pki: Arc<Pki>,
    pub outside: Outside,
}

impl Joined {
    pub fn open(data_dir: &Path) -> Result<Joined, String> {
        let keys = data_dir.join("pki");
        if !keys.join("ca.key").exists() {
            let place = data_dir.display();
            return Err(format!(
                "--join: {place} has no pki/ca.key, so it is no data directory of a `kubesim \
                 server` that keeps its keys there"
            ));
        }
        let kubeconfig = data_dir.join("admin.conf");
        let text = fs::read_to_string(&kubeconfig)
            .map_err(|error| format!("--join: reading {}: {error}", kubeconfig.display()))?;
        let at = pki::server_of(&text).ok_or_else(|| {
            format!("--join: {} names no server by an IPv4 address", kubeconfig.display())
        })?;
        // By its name: the addresses change.
        let pki = Arc::new(Pki::open(&keys, &[], LEAF)?);
        Ok(Joined { pki, outside: Outside::new(at)? })
    }
}

type Asked = oneshot::Sender<io::Result<TcpStream>>;

/// Connects to the server in the network of the thread that made this value: a socket belongs to
/// the namespace in which it was made, whoever uses it.
#[derive(Clone)]
pub struct Outside(Sender<Asked>);

impl Outside {
    fn new(at: SocketAddrV4) -> Result<Outside, String> {
        let (send, asked) = channel::<Asked>();
        let thread = thread::Builder::new().name("lab-outside".to_owned());
        let connects = move || {
            for answer in asked {
                // Who asked may be gone.
                let _ = answer.send(TcpStream::connect_timeout(&at.into(), PATIENCE));
            }
        };
        thread.spawn(connects).map_err(|error| format!("starting a thread: {error}"))?;
        Ok(Outside(send))
    }

    pub async fn connect(&self) -> io::Result<tokio::net::TcpStream> {
        let (answer, stream) = oneshot::channel();
        let ended = |_| io::Error::other("the thread that connects has ended");
        self.0.send(answer).map_err(|_| io::Error::other("the thread that connects has ended"))?;
        let stream = stream.await.map_err(ended)??;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_servers_directory_is_refused() {
        let place = std::env::temp_dir().join(format!("kubesim-join-{}", std::process::id()));
        fs::create_dir_all(place.join("pki")).expect("a directory");
        let refused = |place: &Path| Joined::open(place).err().expect("it is refused");
        assert!(refused(&place).contains("no pki/ca.key"));
        let pki = Pki::open(&place.join("pki"), &[], LEAF).expect("keys");
        assert!(refused(&place).contains("reading"));
        pki.admin(&place.join("admin.conf"), "https://localhost:1").expect("a kubeconfig");
        assert!(refused(&place).contains("names no server"));
        pki.admin(&place.join("admin.conf"), "https://127.0.0.1:6443").expect("a kubeconfig");
        let joined = Joined::open(&place).expect("a server's directory");
        assert_eq!(joined.pki.authority, pki.authority);
        fs::remove_dir_all(&place).expect("it goes");
    }
}
