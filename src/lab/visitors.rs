//! Programs of this machine, outside of the lab's namespaces, that look into a running one: the
//! stock `kubectl`. A socket belongs to the namespace in which it was made, whoever serves it; so
//! the API server's thread accepts from one of this machine's loopback as well.

use crate::pki::Pki;
use crate::run::quoted;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where they come in, and what they are known by; both end with this value.
pub struct Visitors {
    listener: Arc<TcpListener>,
    kubeconfig: PathBuf,
}

impl Visitors {
    /// The kubeconfig is a new file: what is there already is somebody's.
    pub fn new(pki: &Pki, kubeconfig: &Path) -> Result<Visitors, String> {
        let path = kubeconfig.display();
        if kubeconfig.exists() {
            return Err(format!("--kubeconfig: {path} is there already; name a new file"));
        }
        let listen = || -> io::Result<(TcpListener, u16)> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        };
        let (listener, port) =
            listen().map_err(|error| format!("listening for kubectl on the loopback: {error}"))?;
        pki.admin(kubeconfig, &format!("https://{}:{port}", Ipv4Addr::LOCALHOST))?;
        Ok(Visitors { listener: Arc::new(listener), kubeconfig: kubeconfig.to_owned() })
    }

    /// What the API server accepts from.
    pub fn listener(&self) -> Arc<TcpListener> {
        Arc::clone(&self.listener)
    }

    /// How to come in.
    pub fn invitation(&self) -> String {
        let path = quoted(&self.kubeconfig.to_string_lossy());
        format!("try: kubectl --kubeconfig {path} get nodes")
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.kubeconfig);
    }
}
