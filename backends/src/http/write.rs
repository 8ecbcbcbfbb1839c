//! Create, update, patch: read here, decided by the API server.

use super::Inner;
use super::accept::Form;
use super::apply::{self, Write};
use super::auth::{Change, User};
use super::body::{self, Answer};
use super::read::{Show, shown};
use super::resources::Sub;
use super::route::{Query, Target};
use super::status::Failure;
use super::versions::Served;
use super::writing::Writing;
use super::{csr, evict, patch, scale, token, types};
use kubesim_actors::objects::{Body, Kind, Name, Object, PodBody, Uid};
use kubesim_actors::ports::api::{Error, Reason, Reply, Request};
use serde_json::{Value, json};
use std::sync::Arc;

/// A write's body, as it came.
pub struct Sent<'a> {
    pub bytes: &'a [u8],
    pub content_type: &'a str,
    pub query: &'a Query,
    /// How the client's program calls itself.
    pub agent: &'a str,
    pub user: &'a User,
    pub show: Show,
}

impl Sent<'_> {
    /// Who writes; `options` is the kind of the write's options.
    fn manager(&self, options: &str) -> Result<String, Failure> {
        apply::options::manager(self.query, self.agent, options)
    }

    /// What the client gets: what was written, and what it is told beside it.
    fn written(
        &self,
        inner: &Inner,
        new: &Arc<Object>,
        old: Option<&Object>,
        warnings: Vec<String>,
    ) -> Answer {
        let warnings = inner.advised(new, old, warnings);
        // For those who watch as well; and the history is to know how much clients write.
        let held = self.show.held();
        let text = inner.state.borrow().history.text(new, held.unwrap_or(Writing::Go));
        let text = text.filter(|_| held.is_some()).unwrap_or_else(|| shown(new, &self.show));
        let answer = Answer::bytes(body::JSON, text);
        Answer { warnings, ..answer }
    }
}

/// How often a patch is made anew on a newer object (apiserver's `maxRetryWhenPatchConflicts`).
const TRIES: u32 = 5;

/// Whether the write is to be tried only: `dryRun=All`. `options` is the kind of its options.
pub fn dry_run(query: &Query, options: &str) -> Result<bool, Failure> {
    match query.is_set("dryRun") {
        false => Ok(false),
        true => all_of_it(&[query.text("dryRun").to_owned()], options),
    }
}

/// As apimachinery's `ValidateDryRun` has it, the one thing that may be left undone is all.
pub fn all_of_it(dry_run: &[String], options: &str) -> Result<bool, Failure> {
    if dry_run.iter().all(|what| what == "All") {
        return Ok(!dry_run.is_empty());
    }
    let list: Vec<String> = dry_run.iter().map(|what| format!("{what:?}")).collect();
    let list = list.join(", ");
    let cause = format!("dryRun: Unsupported value: []string{{{list}}}: supported values: \"All\"");
    Err(Failure::invalid_options(options, &cause))
}

pub async fn create(inner: &Inner, target: &Target, sent: Sent<'_>) -> Result<Answer, Failure> {
    let dry_run = dry_run(sent.query, "CreateOptions")?;
    let value = body::value(sent.bytes, sent.content_type)?;
    match target.sub {
        Some(Sub::Binding) => return bind(inner, target, &value, dry_run).await,
        Some(Sub::Token) => return token::create(inner, target, sent.user, value),
        Some(Sub::Eviction) => {
            let old = inner.object(target)?;
            inner.restrict(sent.user, Change { sub: target.sub, old: Some(&old), new: None })?;
            return evict::evict(inner, target, value, dry_run).await;
        }
        _ => {}
    }
    let manager = sent.manager("CreateOptions")?;
    let (mut object, warnings) = decoded(target, value, &sent, None)?;
    let name = object.key.name.clone();
    object.key.namespace = target.namespace.clone();
    target.write(&manager, inner.now()).track(None, &mut object);
    confirm(inner, target, &sent, &object, None)?;
    csr::create(sent.user, &mut object)?;
    inner.restrict(sent.user, Change { sub: None, old: None, new: Some(&object) })?;
    let object = Arc::new(object);
    let request = || Request::Create { object: Arc::clone(&object) };
    let mut created = call(inner, target.kind(), &name, request(), dry_run).await;
    if created.as_ref().is_err_and(|failure| failure.reason == "Forbidden")
        && inner.account_comes(&object).await
    {
        created = call(inner, target.kind(), &name, request(), dry_run).await;
    }
    Ok(sent.written(inner, &created?, None, warnings).created())
}

/// What the front forbids by itself: what a version does, and to grant what one does not hold.
fn confirm(
    inner: &Inner,
    target: &Target,
    sent: &Sent<'_>,
    object: &Object,
    live: Option<&Object>,
) -> Result<(), Failure> {
    let status = matches!(target.sub, Some(Sub::Status | Sub::Approval));
    target.served.check(object, live, status)?;
    inner.confirm_grant(sent.user, object, live)
}

/// `pods/binding`.
async fn bind(
    inner: &Inner,
    target: &Target,
    value: &Value,
    dry_run: bool,
) -> Result<Answer, Failure> {
    let node = value["target"]["name"].as_str().unwrap_or_default();
    let to = value["target"]["kind"].as_str().unwrap_or("Node");
    if !["", "Node"].contains(&to) {
        let message = format!("target.kind: Unsupported value: {to:?}: supported values: \"Node\"");
        return Err(Failure::bad_request(message));
    }
    let uid = match value["metadata"]["uid"].as_str().unwrap_or_default() {
        "" => Uid::NONE,
        text => parse_uid(text)?,
    };
    let request = Request::Bind { pod: target.key(), uid, node: Name::from(node) };
    call(inner, Kind::Pod, &target.key().name, request, dry_run).await?;
    Ok(done())
}

pub async fn update(inner: &Inner, target: &Target, sent: Sent<'_>) -> Result<Answer, Failure> {
    let dry_run = dry_run(sent.query, "UpdateOptions")?;
    let value = body::value(sent.bytes, sent.content_type)?;
    let manager = sent.manager("UpdateOptions")?;
    let write = target.write(&manager, inner.now());
    if target.sub == Some(Sub::Scale) {
        return scale::update(inner, target, &value, write, dry_run).await;
    }
    confirm_namespace(target, &value)?;
    let live = inner.object(target).ok();
    let (object, warnings) = decoded(target, value, &sent, live.as_deref())?;
    let object = at(target, object)?;
    let mut before = None;
    let updated = again(object.version != 0, async || {
        let live = inner.object(target)?;
        before = Some(Arc::clone(&live));
        let mut object = object.clone();
        if object.version == 0 {
            object.version = live.version;
        }
        write.track(Some(&live), &mut object);
        put(inner, &sent, target, object, dry_run).await
    });
    Ok(sent.written(inner, &updated.await?, before.as_deref(), warnings))
}

/// Tries a write anew on a newer object, unless the client wants no newer one.
pub async fn again<T>(
    conditional: bool,
    mut write: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        match write().await {
            Err(failure) if failure.reason == "Conflict" && !conditional && tries < TRIES => {}
            outcome => return outcome,
        }
    }
}

/// An update of the object, or of its status.
async fn put(
    inner: &Inner,
    sent: &Sent<'_>,
    target: &Target,
    mut object: Object,
    dry_run: bool,
) -> Result<Arc<Object>, Failure> {
    let live = inner.object(target).ok();
    confirm(inner, target, sent, &object, live.as_deref())?;
    if let Some(live) = &live {
        csr::update(inner, sent.user, target.sub, live, &mut object)?;
        let change = Change { sub: target.sub, old: Some(live), new: Some(&object) };
        // A write upon an older version conflicts, whatever it changes: the version is compared
        // before admission validates (`Store.Update` in apiserver's registry/generic).
        if object.version >= live.version {
            inner.restrict(sent.user, change)?;
        }
    }
    let object = Arc::new(object);
    let request = match target.sub {
        Some(Sub::Status | Sub::Approval) => Request::UpdateStatus { object },
        Some(Sub::EphemeralContainers) => Request::UpdateEphemeralContainers { object },
        _ => Request::Update { object },
    };
    call(inner, target.kind(), &target.key().name, request, dry_run).await
}

/// The object is the one of the path (`checkName` in apiserver's `pkg/endpoints/handlers/rest.go`).
fn at(target: &Target, mut object: Object) -> Result<Object, Failure> {
    let key = target.key();
    if object.key.name.is_empty() {
        object.key.name = key.name.clone();
    }
    let (ours, theirs) = (&key.name, &object.key.name);
    if theirs != ours {
        return Err(Failure::bad_request(format!(
            "the name of the object ({theirs}) does not match the name on the URL ({ours})"
        )));
    }
    object.key.namespace = key.namespace;
    Ok(object)
}

/// An object that names a namespace names the path's
/// (`EnsureObjectNamespaceMatchesRequestNamespace` in apiserver's `pkg/registry/rest/meta.go`).
fn confirm_namespace(target: &Target, value: &Value) -> Result<(), Failure> {
    let ours = target.key().namespace;
    let theirs = value["metadata"]["namespace"].as_str().unwrap_or_default();
    if theirs.is_empty() || ours.is_empty() || theirs == ours.as_str() {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "the namespace of the object ({theirs}) does not match the namespace on the request ({ours})"
    )))
}

pub async fn patch(inner: &Inner, target: &Target, sent: Sent<'_>) -> Result<Answer, Failure> {
    let dry_run = dry_run(sent.query, "PatchOptions")?;
    let applies = sent.content_type == apply::options::MEDIA_TYPE;
    let force = apply::options::force(sent.query, applies)?;
    let manager = sent.manager("PatchOptions")?;
    let write = target.write(&manager, inner.now());
    if applies {
        return applied(inner, target, sent, write, force, dry_run).await;
    }
    let patch = patch::parse(sent.bytes, sent.content_type, &target.served)?;
    if target.sub == Some(Sub::Scale) {
        return scale::patch(inner, target, &patch, write, dry_run).await;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let old = inner.object(target)?;
        let left = patch.leaves_managers().then(|| old.managed.clone());
        let mut value = match left {
            Some(_) => write.bare(&old),
            None => patch.base(&target.served, &old),
        };
        patch.apply(&target.served, &mut value)?;
        confirm_namespace(target, &value)?;
        let (object, warnings) = decoded(target, value, &sent, Some(&old))?;
        let mut object = at(target, object)?;
        if let Some(managed) = left {
            object.managed = managed;
        }
        // One that names another version than that of the object wants no newer one.
        let conditional = object.version != old.version;
        write.track(Some(&old), &mut object);
        match put(inner, &sent, target, object, dry_run).await {
            Err(failure) if failure.reason == "Conflict" && !conditional && tries < TRIES => {}
            Err(failure) => return Err(failure),
            Ok(patched) => return Ok(sent.written(inner, &patched, Some(&old), warnings)),
        }
    }
}

/// A configuration is applied: what is not there yet is made.
async fn applied(
    inner: &Inner,
    target: &Target,
    sent: Sent<'_>,
    write: Write<'_>,
    force: bool,
    dry_run: bool,
) -> Result<Answer, Failure> {
    let (kind, expected) = (target.kind(), target.served.type_of(target.sub));
    let config = apply::options::config(sent.bytes, expected)?;
    if target.sub == Some(Sub::Scale) {
        return scale::apply(inner, target, &config, write, force, dry_run).await;
    }
    let version = config["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    again(!version.is_empty(), async || {
        let live = match inner.object(target) {
            Err(failure) if failure.reason == "NotFound" && target.sub.is_none() => None,
            live => Some(live?),
        };
        let value = write.apply(live.as_deref(), &config, force)?;
        confirm_namespace(target, &value)?;
        let (object, warnings) = decoded(target, value, &sent, live.as_deref())?;
        let mut object = at(target, object)?;
        if let Some(live) = live {
            Write::settle(&live, &mut object);
            let object = put(inner, &sent, target, object, dry_run).await?;
            return Ok(sent.written(inner, &object, Some(&live), warnings));
        }
        let name = &target.key().name;
        if object.uid != Uid::NONE {
            return Err(no_such_uid(kind, name, object.uid));
        }
        confirm(inner, target, &sent, &object, None)?;
        csr::create(sent.user, &mut object)?;
        inner.restrict(sent.user, Change { sub: None, old: None, new: Some(&object) })?;
        let request = Request::Create { object: Arc::new(object) };
        let made = call(inner, kind, name, request, dry_run).await.map_err(|failure| {
            // Another made it meanwhile: it is applied to that.
            match failure.reason {
                "AlreadyExists" => Failure { reason: "Conflict", ..failure },
                _ => failure,
            }
        })?;
        Ok(sent.written(inner, &made, None, warnings).created())
    })
    .await
}

fn no_such_uid(kind: Kind, name: &str, uid: Uid) -> Failure {
    let why = format!(
        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
    );
    let error = Error::new(Reason::Conflict, why);
    Failure::of(error, kind, name)
}

/// What the body says, less what its kind does not have: refused, or told in a warning, as the
/// client wants it (`fieldValidation`, KEP-2885). It is to be in place of `live`.
fn decoded(
    Target { served, sub, .. }: &Target,
    mut value: Value,
    sent: &Sent<'_>,
    live: Option<&Object>,
) -> Result<(Object, Vec<String>), Failure> {
    let kind = served.kind;
    for (field, what, ours) in
        [("apiVersion", "API version", served.api_version()), ("kind", "kind", kind.name())]
    {
        let theirs = value[field].as_str().unwrap_or_default();
        if !["", ours].contains(&theirs) {
            return Err(Failure::bad_request(format!(
                "the {what} in the data ({theirs}) does not match the expected {what} ({ours})"
            )));
        }
        value[field] = ours.into();
    }
    let version = value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if !version.is_empty() && version.parse::<u64>().is_err() {
        let message = format!("metadata.resourceVersion: Invalid value: {version:?}: no number");
        return Err(Failure::bad_request(message));
    }
    if let Some(uid) = value["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
        parse_uid(uid)?;
    }
    if sent.show.form != Form::Plain(Writing::Bare) {
        settle(served, &mut value, live);
    }
    let (object, unknown) = served.read(&value);
    let cannot = |why: String| {
        let version = served.version();
        let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}");
        Failure::bad_request(message)
    };
    let mut object = object.map_err(|(path, why)| {
        let ours = || {
            let place = path.to_string();
            let colon = if place.is_empty() { "" } else { ": " };
            format!("{place}{colon}{why}")
        };
        cannot(types::mismatch(served.place(), &value, &path).unwrap_or_else(ours))
    })?;
    if let (Some(Sub::EphemeralContainers), Some(live)) = (sub, live) {
        keep_all_but_ephemeral(&mut object, live);
    }
    let message = served.place().message();
    if let Some(why) = message.and_then(|message| types::no_quantity(message, &value)) {
        return Err(cannot(why.to_owned()));
    }
    let unknown: Vec<String> =
        unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match sent.query.text("fieldValidation") {
        "" | "Warn" => Ok((object, unknown)),
        "Ignore" => Ok((object, Vec::new())),
        "Strict" if unknown.is_empty() => Ok((object, unknown)),
        "Strict" => Err(cannot(format!("strict decoding error: {}", unknown.join(", ")))),
        other => Err(Failure::bad_request(format!(
            "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \
             \"Strict\", \"Warn\""
        ))),
    }
}

/// Nothing else of what was sent there counts (`dropNonEphemeralContainerUpdates` of
/// pkg/registry/core/pod/strategy.go).
fn keep_all_but_ephemeral(new: &mut Object, live: &Object) {
    new.meta = Arc::clone(&live.meta);
    if let (Body::Pod(pod), Some(live)) = (&mut new.body, live.pod_body()) {
        let mut spec = (**live.spec()).clone();
        spec.ephemeral_containers.clone_from(&pod.spec().ephemeral_containers);
        *pod = PodBody::new(Arc::new(spec), Arc::clone(live.status()));
    }
}

/// What is said in Go's form is taken as it is held. A part that says what it said before stays as
/// it was, if it was not written so: nothing has changed in it.
fn settle(served: &Served, value: &mut Value, live: Option<&Object>) {
    types::strip_go(served.message(), value);
    let Some(Value::Object(held)) = live.map(|live| served.json(live)) else { return };
    let mut said = Value::Object(held.clone());
    types::strip_go(served.message(), &mut said);
    for (part, held) in held {
        if part != "metadata" && value.get(&part) == said.get(&part) {
            value[part] = held;
        }
    }
}

pub fn parse_uid(text: &str) -> Result<Uid, Failure> {
    let wrong = || Failure::bad_request(format!("uid: Invalid value: {text:?}: it is no UUID"));
    Uid::parse(text).ok_or_else(wrong)
}

/// What a subresource that makes nothing answers: the code stands in the Status as well
/// (apiserver's `handlers/create.go`).
pub fn done() -> Answer {
    Answer::json(&json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                         "status": "Success", "code": 201}))
    .created()
}

/// A write, done or only tried, and its answer.
pub async fn call(
    inner: &Inner,
    kind: Kind,
    name: &str,
    request: Request,
    dry_run: bool,
) -> Result<Arc<Object>, Failure> {
    match inner.call(request, dry_run).await {
        Ok(Reply::Object(object)) => Ok(object),
        Ok(Reply::List(_) | Reply::Token { .. }) => {
            let error =
                Error::new(Reason::InternalError, "what came in answer to a write is no object");
            Err(Failure::of(error, kind, name))
        }
        Err(error) => Err(Failure::of(error, kind, name)),
    }
}
