//! Calls to a runtime over its socket.

use super::messages::Call;
use std::cell::OnceCell;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// As upstream's (staging/src/k8s.io/cri-client/pkg/remote_runtime.go).
const MAX_MESSAGE: usize = 16 << 20;

/// One connection, made at the first call and again whenever it broke.
pub struct Client {
    socket: PathBuf,
    channel: OnceCell<Channel>,
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// The runtime's own words.
    pub message: String,
}

/// As grpc-go prints it, which is how people know it.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error: code = {:?} desc = {}", self.code, self.message)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        let message = match status.source() {
            // It never got there: tonic has no more than "transport error" to say.
            Some(cause) => format!("{}: {}", status.message(), chain(cause)),
            None => status.message().to_owned(),
        };
        Failure { code: status.code(), message }
    }
}

impl Failure {
    /// Not answered in time.
    pub fn late() -> Failure {
        let message = "context deadline exceeded".to_owned();
        Failure { code: Code::DeadlineExceeded, message }
    }

    pub fn not_there(&self) -> bool {
        self.code == Code::NotFound
    }
}

impl Client {
    pub fn new(socket: PathBuf) -> Client {
        Client { socket, channel: OnceCell::new() }
    }

    /// Called within a runtime of tokio's. One that is not answered `within` this time may have
    /// happened.
    pub async fn call<C: Call>(&self, request: C, within: Duration) -> Result<C::Answer, Failure> {
        let channel = self.channel()?;
        let called = async move {
            let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
            grpc.ready().await.map_err(away)?;
            let path = PathAndQuery::from_static(C::METHOD);
            let codec = ProstCodec::<C, C::Answer>::default();
            let answer = grpc.unary(Request::new(request), path, codec).await?;
            Ok(answer.into_inner())
        };
        timeout(within, called).await.unwrap_or_else(|_| Err(Failure::late()))
    }

    fn channel(&self) -> Result<Channel, Failure> {
        if let Some(channel) = self.channel.get() {
            return Ok(channel.clone());
        }
        let address = format!("unix://{}", self.socket.display());
        let endpoint = Endpoint::from_shared(address).map_err(|error| Failure {
            code: Code::InvalidArgument,
            message: format!("{}: {error}", self.socket.display()),
        })?;
        Ok(self.channel.get_or_init(|| endpoint.connect_lazy()).clone())
    }
}

fn away(error: tonic::transport::Error) -> Failure {
    Failure { code: Code::Unavailable, message: chain(&error) }
}

/// An error with its causes: the last one is what people need.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        words = format!("{words}: {error}");
        next = error.source();
    }
    words
}
