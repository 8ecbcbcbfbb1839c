//! Programs of this machine, outside of the lab's namespaces, that look into a running one: the
//! stock `kubectl`. A socket belongs to the namespace in which it was made, whoever serves it; so
//! the API server's thread accepts from one of this machine's loopback as well.

use crate::kubeconfig::Kubeconfig;
use crate::pki::Pki;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

/// Where they come in, and what they are known by; both end with this value.
pub struct Visitors {
    listener: Arc<TcpListener>,
    kubeconfig: Kubeconfig,
}

impl Visitors {
    pub fn new(pki: &Pki, kubeconfig: &Path) -> Result<Visitors, String> {
        let listen = || -> io::Result<(TcpListener, u16)> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        };
        let (listener, port) =
            listen().map_err(|error| format!("listening for kubectl on the loopback: {error}"))?;
        let url = format!("https://{}:{port}", Ipv4Addr::LOCALHOST);
        let kubeconfig = Kubeconfig::new(pki, kubeconfig, &url)?;
        Ok(Visitors { listener: Arc::new(listener), kubeconfig })
    }

    /// What the API server accepts from.
    pub fn listener(&self) -> Arc<TcpListener> {
        Arc::clone(&self.listener)
    }

    /// How to come in.
    pub fn invitation(&self) -> String {
        self.kubeconfig.invitation()
    }
}
