//! A request, from its head to its answer.

use super::accept;
use super::auth::{Attributes, User};
use super::body::{self, Answer, Body, Stream};
use super::metrics::One;
use super::pace::Held;
use super::read::{self, Age, Show};
use super::resources::Sub;
use super::route::{self, Query, Route, Target};
use super::selector::Selector;
use super::status::Failure;
use super::table::Include;
use super::write::{self, Sent};
use super::{Inner, delete, discovery, gzip, lease, nodes, openapi, scale, watch};
use hyper::body::{Body as HttpBody, Bytes};
use hyper::header::{ACCEPT, CACHE_CONTROL, USER_AGENT};
use hyper::{Method, Request, Response};
use kubesim_runtime::Wall;
use serde_json::{Value, json};
use std::rc::Rc;
use tokio::sync::mpsc;

/// The version of Kubernetes whose API this is, and ours.
pub const GIT_VERSION: &str = concat!("v1.33.0+kubesim.", env!("CARGO_PKG_VERSION"));

/// What is counted of a request.
struct Asked {
    verb: &'static str,
    resource: &'static str,
}

pub async fn handle<B>(
    inner: Rc<Inner>,
    user: Option<Rc<User>>,
    request: Request<B>,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    inner.state.borrow_mut().history.remember();
    let mut asked = Asked { verb: "other", resource: "" };
    let gzip = gzip::accepted(request.headers());
    let outcome = answer(&inner, user.as_deref(), request, &mut asked).await;
    let response = match outcome {
        Ok(answer) if gzip => gzip::compressed(answer.response()),
        Ok(answer) => answer.response(),
        Err(failure) => body::refused(failure),
    };
    inner.metrics.request(asked.verb, asked.resource, response.status().as_u16());
    response
}

async fn answer<B>(
    inner: &Rc<Inner>,
    user: Option<&User>,
    mut request: Request<B>,
    asked: &mut Asked,
) -> Result<Answer, Failure>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path();
    let definitions = inner.definitions();
    let route = route::route(path, &definitions);
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if let Ok(Route::Object(target)) = &route {
        asked.resource = target.kind().plural();
    }
    // Who has nothing to read roles in tells everybody so.
    let unwell = matches!(route, Ok(Route::Health(_))) && !inner.is_open();
    let user = match unwell {
        true => User::anonymous(),
        false => inner.asking(user, &request, &route, &query)?,
    };
    let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let accepted = accepted.unwrap_or_default().to_owned();
    let measure = inner.links.measure();
    match route? {
        Route::Object(target) => {
            let hold = lease::read(request.headers())?;
            lease::by(hold, object(inner, &user, request, (target, query), &accepted, asked)).await
        }
        Route::Node(target, what) => {
            (asked.verb, asked.resource) = ("CONNECT", target.kind().plural());
            nodes::answer(inner, request, &target, what).await
        }
        Route::Review(review, namespace) if request.method() == Method::POST => {
            (asked.verb, asked.resource) = ("POST", review.plural);
            let content_type = body::content_type(request.headers());
            let mut held = Held::none(inner, |inner| &inner.metrics.bodies);
            let bytes = inner.body(request.into_body(), &mut held).await?;
            let value = body::value(&bytes, &content_type)?;
            inner.review(&user, review, &namespace, value)
        }
        Route::Review(..) => Err(Failure::no_such_method()),
        Route::Usage(path) => {
            asked.verb = "GET";
            nodes::usage::answer(inner, request.method(), &path, &query).await
        }
        _ if request.method() != Method::GET => Err(Failure::no_such_method()),
        Route::Tunnel(node) => nodes::dialled(inner, &user, &node, &mut request),
        Route::Version => Ok(Answer::json(&version())),
        Route::Health(check) => health(inner, &check),
        Route::Metrics => Ok(Answer::bytes("text/plain; version=0.0.4", inner.metrics.text())),
        Route::Groups { core } => discovery::groups(core, &accepted, &definitions, measure),
        Route::Group(name) => {
            discovery::group(&name, &definitions).map(|value| Answer::json(&value))
        }
        Route::GroupVersion(group, version) => {
            Ok(Answer::json(&discovery::group_version(&group, &version, &definitions)))
        }
        Route::OpenId { keys } => open_id(inner, keys),
        Route::OpenApiV2 => {
            openapi::v2_in(&accepted, request.headers(), &inner.declared, &definitions)
        }
        Route::OpenApi(below) => {
            let (hash, declared) = (query.text("hash"), &inner.declared);
            openapi::v3_at(&below, hash, &accepted, request.headers(), declared, &definitions)
        }
    }
}

impl Inner {
    /// Who asks, or whom they ask as, if they may.
    fn asking<B>(
        &self,
        user: Option<&User>,
        request: &Request<B>,
        route: &Result<Route, Failure>,
        query: &Query,
    ) -> Result<User, Failure> {
        let user = self.authenticate(user, request.headers())?;
        let user = self.impersonate(user, request.headers())?;
        // Who may be a node's end of a tunnel, no role says.
        if !matches!(route, Ok(Route::Tunnel(_))) {
            let path = request.uri().path();
            self.admit(&user, &Attributes::read(request.method().as_str(), path, query))?;
        }
        Ok(user)
    }

    /// All of a request's body.
    async fn body<B>(&self, body: B, held: &mut Held) -> Result<Bytes, Failure>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        body::read(body, self.limits.request, held, self.limits.bodies).await
    }
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": GIT_VERSION, "gitCommit": "",
        "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// kubernetes `pkg/routes/openidmetadata.go`; the time is `pkg/serviceaccount/jwt.go`'s.
fn open_id(inner: &Inner, keys: bool) -> Result<Answer, Failure> {
    let issuer = inner.auth.issuer().ok_or_else(Failure::no_such_resource)?;
    let answer = match keys {
        true => Answer::bytes("application/jwk-set+json", issuer.public_keys().to_string()),
        false => Answer::json(&issuer.configuration()),
    };
    Ok(answer.with(CACHE_CONTROL, "public, max-age=3600"))
}

fn health(inner: &Inner, check: &str) -> Result<Answer, Failure> {
    // In upstream's words (apiserver `pkg/server/healthz.go`), where only `readyz` looks at it.
    let stopping = check == "readyz" && inner.state.borrow().stopping;
    if check == "livez" || inner.is_open() && !stopping {
        return Ok(Answer::bytes("text/plain; charset=utf-8", "ok"));
    }
    let why = match stopping {
        true => "[-]shutdown failed: process is shutting down",
        false => "[-]storage failed: the store is being read",
    };
    Err(Failure::new(500, "InternalError", format!("{why}\n{check} check failed")))
}

async fn object<B>(
    inner: &Rc<Inner>,
    user: &User,
    request: Request<B>,
    (target, query): (Target, Query),
    accepted: &str,
    asked: &mut Asked,
) -> Result<Answer, Failure>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let show = show(&target, &query, accepted, inner.now())?;
    let warning = target.served.warning().map(str::to_owned);
    let mut answer = answered(inner, user, request, (target, query, show), asked).await?;
    answer.warnings.extend(warning);
    Ok(answer)
}

async fn answered<B>(
    inner: &Rc<Inner>,
    user: &User,
    request: Request<B>,
    (target, query, show): (Target, Query, Show),
    asked: &mut Asked,
) -> Result<Answer, Failure>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let method = request.method().clone();
    let watches = method == Method::GET && target.sub.is_none() && query.flag("watch");
    if watches {
        asked.verb = "WATCH";
        return open_watch(inner, target, &query, show).await;
    }
    if inner.metrics.in_flight.get() >= inner.limits.in_flight {
        return Err(Failure::too_many("too many requests, please try again later"));
    }
    let _one = One::of(&inner.metrics.in_flight);
    if method == Method::GET {
        asked.verb = if target.name.is_some() { "GET" } else { "LIST" };
        if inner.metrics.answers.get() > inner.limits.answers {
            return Err(Failure::too_many("too many bytes of answers are not taken yet"));
        }
        return reads(inner, &target, &query, show).await;
    }
    let content_type = body::content_type(request.headers());
    let agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or_default().to_owned();
    let mut held = Held::none(inner, |inner| &inner.metrics.bodies);
    let bytes = inner.body(request.into_body(), &mut held).await?;
    let (content_type, agent) = (&content_type[..], &agent[..]);
    let sent = Sent { bytes: &bytes, content_type, query: &query, agent, user, show };
    asked.verb = verb(&target, method.as_str()).ok_or_else(Failure::no_such_method)?;
    let unknown = target.name.is_some() && inner.object(&target).is_err();
    if unknown || asked.verb == "DELETECOLLECTION" {
        // Another server may know more.
        inner.as_of_now().await?;
    }
    match asked.verb {
        "POST" => write::create(inner, &target, sent).await,
        "PUT" => write::update(inner, &target, sent).await,
        "PATCH" => write::patch(inner, &target, sent).await,
        "DELETE" => delete::delete(inner, &target, sent).await,
        _ => {
            let selector = selector(&target, &query)?;
            delete::delete_collection(inner, &target, &selector, sent).await
        }
    }
}

/// What a writing method is to the objects of a path, if it is anything.
fn verb(target: &Target, method: &str) -> Option<&'static str> {
    // Not in all namespaces at once.
    let collection =
        target.name.is_none() && (!target.kind().namespaced() || !target.namespace.is_empty());
    let made = matches!(target.sub, Some(Sub::Binding | Sub::Eviction | Sub::Token));
    let written = target.name.is_some() && !made;
    match (method, target.sub) {
        ("POST", None) if collection => Some("POST"),
        ("POST", _) if made => Some("POST"),
        ("PUT", _) if written => Some("PUT"),
        ("PATCH", _) if written => Some("PATCH"),
        ("DELETE", None) if target.name.is_some() => Some("DELETE"),
        ("DELETE", None)
            if collection && target.served.resource().verbs().contains(&"deletecollection") =>
        {
            Some("DELETECOLLECTION")
        }
        _ => None,
    }
}

fn show(target: &Target, query: &Query, accepted: &str, now: Wall) -> Result<Show, Failure> {
    let include = match query.text("includeObject") {
        "" | "Metadata" => Include::Metadata,
        "None" => Include::None,
        "Object" => Include::Object,
        other => {
            return Err(Failure::bad_request(format!(
                "includeObject: Unsupported value: {other:?}: supported values: \"Metadata\", \
                 \"None\", \"Object\""
            )));
        }
    };
    Ok(Show { served: target.served.clone(), form: accept::form(accepted)?, include, now })
}

fn selector(target: &Target, query: &Query) -> Result<Selector, Failure> {
    Selector::parse(&target.served, query.text("labelSelector"), query.text("fieldSelector"))
}

async fn reads(
    inner: &Inner,
    target: &Target,
    query: &Query,
    show: Show,
) -> Result<Answer, Failure> {
    match read::age(query)? {
        Age::NotOlderThan(revision) | Age::Exact(revision) => inner.not_older(revision).await?,
        Age::Any if newest(query) => inner.as_of_now().await?,
        Age::Any => {}
    }
    if target.name.is_none() {
        let selector = selector(target, query)?;
        let state = &mut *inner.state.borrow_mut();
        let page = read::list(&mut state.history, target, query, &selector)?;
        return Ok(Answer::pieces(read::render(target, &page, &show, state)));
    }
    let object = inner.object(target)?;
    match target.sub {
        None | Some(Sub::Status | Sub::Approval | Sub::EphemeralContainers) => {
            let state = &mut inner.state.borrow_mut();
            Ok(Answer::bytes(body::JSON, read::text(&object, &show, state)))
        }
        Some(Sub::Scale) => Ok(scale::answer(&scale::read(&target.served, &object)?)),
        Some(Sub::Binding | Sub::Eviction | Sub::Token) => Err(Failure::no_such_method()),
    }
}

/// Upstream's "Most Recent"; "0" is any, and a page is of the version of the one before it.
fn newest(query: &Query) -> bool {
    query.text("resourceVersion").is_empty() && query.text("continue").is_empty()
}

async fn open_watch(
    inner: &Rc<Inner>,
    target: Target,
    query: &Query,
    show: Show,
) -> Result<Answer, Failure> {
    let selector = selector(&target, query)?;
    inner.not_older(query.number("resourceVersion")?.unwrap_or(0)).await?;
    if newest(query) {
        inner.as_of_now().await?;
    }
    let watch = watch::open(inner, target, query, selector, show)?;
    let (send, pieces) = mpsc::channel(1);
    let inner = Rc::clone(inner);
    let source = async move {
        let _one = One::of(&inner.metrics.watches);
        watch.run(Rc::clone(&inner), send).await;
    };
    Ok(Answer::stream(Stream::new(Box::pin(source), pieces)))
}
