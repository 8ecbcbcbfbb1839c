//! The tokens that a pod shows of the account it runs as: asked for when a volume needs one, and
//! again before it ends (pkg/kubelet/token/token_manager.go).

use super::objects::Lack;
use crate::kubelet::Kubelet;
use crate::kubelet::local::{Call, Local};
use crate::objects::{Key, Object};
use crate::ports::api::{self, TokenRequest};
use k8s_openapi::api::core::v1::{PodSpec, ServiceAccountTokenProjection};
use kubesim_runtime::{Context, Wall};
use std::sync::Arc;
use std::time::Duration;

/// What is left of its life when a token is replaced: a fifth of it.
const LAST: u32 = 5;
/// No token is kept longer.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// So that not all pods ask together.
const SPREAD: Duration = Duration::from_secs(10);
/// Not sooner is asked again in vain.
const AGAIN: Duration = Duration::from_secs(1);
/// Seconds, if the volume does not say.
const LIFE: i64 = 3600;

#[derive(Clone, Debug)]
pub struct Token {
    /// Empty: whoever is meant if nobody is said, the API server.
    audience: String,
    seconds: i64,
    held: Option<Held>,
    asked: bool,
    /// Why the last request was in vain, and when.
    failed: Option<(String, Wall)>,
}

#[derive(Clone, Debug)]
struct Held {
    text: Arc<str>,
    /// From when on another one is asked for.
    renew: Wall,
    ends: Wall,
}

impl Token {
    pub fn of(source: &ServiceAccountTokenProjection) -> Token {
        Token {
            audience: source.audience.clone().unwrap_or_default(),
            seconds: source.expiration_seconds.unwrap_or(LIFE),
            held: None,
            asked: false,
            failed: None,
        }
    }

    fn is_for(&self, source: &ServiceAccountTokenProjection) -> bool {
        let audience = source.audience.as_deref().unwrap_or_default();
        self.audience == audience && self.seconds == source.expiration_seconds.unwrap_or(LIFE)
    }

    fn is_due(&self, now: Wall) -> bool {
        let waits = self.failed.as_ref().is_some_and(|(_, at)| now.since(*at) < AGAIN);
        !self.asked && !waits && self.held.as_ref().is_none_or(|held| held.renew <= now)
    }

    /// For how long nothing has to be asked.
    pub fn lasts(&self, now: Wall) -> Duration {
        match &self.held {
            Some(held) => held.renew.since(now),
            None => Duration::ZERO,
        }
    }

    pub fn answered(
        &mut self,
        result: Result<api::Reply, api::Error>,
        ctx: &mut Context<'_, Kubelet>,
    ) {
        self.asked = false;
        let now = ctx.wall();
        match result {
            Ok(api::Reply::Token { text, ends }) => {
                let life = ends.since(now);
                let wait = (life - life / LAST).min(OLDEST);
                let sooner = ctx.rng().between(Duration::ZERO, SPREAD.min(wait));
                let renew = now + (wait - sooner);
                self.held = Some(Held { text, renew, ends });
                self.failed = None;
            }
            Ok(_) => self.failed = Some(("the answer is no token".to_owned(), now)),
            Err(error) => self.failed = Some((error.message, now)),
        }
    }
}

/// The token of a source: the one that is held, for as long as it is good, or why there is none.
pub fn get(
    tokens: &[Token],
    source: &ServiceAccountTokenProjection,
    now: Wall,
) -> Result<Arc<str>, Lack> {
    let token = tokens.iter().find(|token| token.is_for(source)).ok_or(Lack::Coming)?;
    if let Some(held) = token.held.as_ref().filter(|held| held.ends > now) {
        return Ok(Arc::clone(&held.text));
    }
    match &token.failed {
        Some((why, _)) if !token.asked => Err(Lack::Wrong(format!("failed to fetch token: {why}"))),
        _ => Err(Lack::Coming),
    }
}

/// All that a pod's volumes name, each once.
pub fn of_pod(spec: &PodSpec) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    for source in sources.filter_map(|source| source.service_account_token.as_ref()) {
        if !tokens.iter().any(|token| token.is_for(source)) {
            tokens.push(Token::of(source));
        }
    }
    tokens
}

/// Asks for those that are missing or old.
pub fn fetch(tokens: &mut [Token], pod: &Object, k: &mut Local, ctx: &mut Context<'_, Kubelet>) {
    let now = ctx.wall();
    let account = pod.pod().and_then(|(spec, _)| spec.service_account_name.as_deref());
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    for (index, token) in tokens.iter_mut().enumerate().filter(|(_, token)| token.is_due(now)) {
        token.asked = true;
        let request = api::Request::Token(TokenRequest {
            account: Key::new(pod.key.namespace.clone(), account),
            pod: pod.key.name.clone(),
            uid: pod.uid,
            audience: token.audience.clone(),
            seconds: token.seconds,
        });
        k.call(Call::Token(pod.uid, index), request, ctx);
    }
}
