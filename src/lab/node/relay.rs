//! The API of a joined cluster, at the machine where the scenario has its server: what comes in
//! there goes to the server, byte by byte. Who speaks, both ends' certificates say.

use super::clients::PORT;
use crate::drive::Running;
use crate::lab::joined::Outside;
use crate::lab::mail::{Mail, News};
use kubesim_backends::port::Local;
use std::io;
use std::net::Ipv4Addr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet, spawn_local};

/// In place of one life of the API server's process: with it end its connections.
pub struct Relay(JoinHandle<()>);

impl Relay {
    pub fn start(outside: &Outside, mail: &Mail) -> Relay {
        let (outside, mail) = (outside.clone(), mail.clone());
        Relay(spawn_local(async move {
            if let Err(error) = serve(&outside).await {
                mail.send(News::Broken(format!("listening for clients of the API: {error}")));
            }
        }))
    }
}

impl Running for Relay {
    fn stop(&self) -> Local<()> {
        self.0.abort();
        Box::pin(async {})
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(outside: &Outside) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    // They end with it.
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await?;
        connections.spawn_local(carry(client, outside.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Whoever's server is away finds the connection closed.
async fn carry(mut client: TcpStream, outside: Outside) {
    let Ok(mut server) = outside.connect().await else { return };
    // Requests are small, and each is waited for.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Either end may break it.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
