//! Groups of one kind: `coordination.k8s.io/v1`, `certificates.k8s.io/v1`, and our own.

use super::cells::{AGE, Cell, NAME, Shown, column, own};
use super::declaration::{STATUS, cluster, namespaced, rules};
use super::{Declaration, Fields, Kind, Rules, Sub, templates, texts};
use crate::objects::validation::Causes;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use serde_json::Value;

pub(super) static LEASE: Declaration = Declaration {
    columns: &[own("Name"), own("Holder"), own("Age")],
    ..namespaced(Kind::Lease, "coordination.k8s.io/v1", "leases")
};

/// Which part of the pod network a machine has, and where it is now.
pub(super) static SUBNET: Declaration = Declaration {
    subresources: STATUS,
    columns: &[own("Name"), own("CIDR"), own("Locator"), own("Age")],
    generation: true,
    ..cluster(Kind::Subnet, "net.kubesim.dev/v1", "subnets")
};

pub(super) static CERTIFICATE_SIGNING_REQUEST: Declaration = Declaration {
    short: &["csr"],
    subresources: &[Sub::Approval, Sub::Status],
    fields: &["spec.signerName"],
    columns: &[
        NAME,
        AGE,
        column("SignerName", Cell::Or("spec.signerName", "<none>")),
        column("Requestor", Cell::Or("spec.username", "")),
        column("RequestedDuration", Cell::Made(requested)),
        column("Condition", Cell::Made(condition)),
    ],
    rules: Some(Rules {
        validate: request,
        // Upstream's strategy keeps the old spec whatever is sent.
        update: |new, old, causes| templates::immutable(new, old, &["spec"], causes),
        ..rules::<CertificateSigningRequest>()
    }),
    ..cluster(
        Kind::CertificateSigningRequest,
        "certificates.k8s.io/v1",
        "certificatesigningrequests",
    )
};

fn requested(shown: &Shown<'_>) -> Value {
    match shown.fields.number("spec.expirationSeconds") {
        Some(seconds) => texts::duration(seconds).into(),
        None => "<none>".into(),
    }
}

fn condition(shown: &Shown<'_>) -> Value {
    let conditions: Vec<CertificateSigningRequestCondition> =
        shown.fields.part("status.conditions");
    let has = |kind: &str| conditions.iter().any(|condition| condition.type_ == kind);
    let mut word = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        word.push_str(",Failed");
    }
    if !shown.fields.text("status.certificate").is_empty() {
        word.push_str(",Issued");
    }
    word.into()
}

/// `validateCertificateSigningRequest` (pkg/apis/certificates/validation).
fn request(fields: &Fields, causes: &mut Causes) {
    if fields.list("spec.usages").is_empty() {
        causes.required("spec.usages", "");
    }
    if fields.text("spec.request").is_empty() {
        causes.required("spec.request", "");
    }
    let signer = fields.text("spec.signerName");
    if signer.is_empty() {
        causes.required("spec.signerName", "");
    } else if signer.matches('/').count() != 1 {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        causes.invalid("spec.signerName", format_args!("{signer:?}"), why);
    }
    if let Some(seconds) = fields.number("spec.expirationSeconds").filter(|seconds| *seconds < 600)
    {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        causes.invalid("spec.expirationSeconds", seconds, why);
    }
}
