//! By which token other machines join: made once and kept below the data directory. Who deletes its
//! Secret ends it; the next start makes another one.

use crate::pki::write;
use crate::token::Token;
use kubesim_backends::http::Front;
use kubesim_backends::http::client::Pin;
use std::fs;
use std::path::Path;

const NAME: &str = "token";

/// Who has a token may ask to be a node, and is one; a node may be one for longer. Upstream's
/// clusters have these bindings from kubeadm, with other names and a group of its tokens' own
/// (kubernetes `cmd/kubeadm/app/phases/bootstraptoken/node/tlsbootstrap.go`).
const RIGHTS: &str = "\
bind kubesim:node-bootstrap>system:node-bootstrapper group:system:bootstrappers
bind kubesim:node-autoapprove-bootstrap>\
system:certificates.k8s.io:certificatesigningrequests:nodeclient group:system:bootstrappers
bind kubesim:node-autoapprove-certificate-rotation>\
system:certificates.k8s.io:certificatesigningrequests:selfnodeclient group:system:nodes
";

/// The one that machines join by now. `authority`: the cluster's, as PEM.
pub async fn token(front: &Front, data_dir: &Path, authority: &str) -> Result<Token, String> {
    front.reconcile_table(RIGHTS).await?;
    let path = data_dir.join(NAME);
    let authority = Some(Pin::of(authority)?);
    let kept = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<Token>().ok());
    let good =
        |kept: &Token| kept.authority == authority && front.knows_bootstrap_token(&kept.bearer);
    if let Some(kept) = kept.filter(good) {
        return Ok(kept);
    }
    let token = Token { bearer: front.make_bootstrap_token().await?, authority };
    write(&path, &format!("{token}\n"))?;
    Ok(token)
}
