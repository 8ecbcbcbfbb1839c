//! The types that have a schema. A kind that is added to the API needs its line here and nothing
//! else of this folder.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::schemars::generate::SchemaSettings;
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use k8s_openapi::{ListableResource, Resource};
use serde_json::{Map, Value};

/// A kind, and the name of its type's schema.
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// `io.k8s.api.core.v1.Pod`.
    pub schema: String,
    /// What a list of them is, if they are listed: `PodList`.
    pub list: Option<&'static str>,
}

/// The schemas as k8s-openapi derived them from upstream's, by their names; and the kinds of them.
pub fn all() -> (Vec<Kind>, Map<String, Value>) {
    let mut types = Types::new();
    types.kinds();
    types.others();
    (types.kinds, types.generator.take_definitions(false))
}

/// A module, and its types: those that are listed, and behind the bar those that are not.
macro_rules! kinds {
    ($types:ident: $($($part:ident)::+ { $($listed:ident)* $(| $($single:ident)*)? })*) => {$({
        use $($part)::+ as module;
        $($types.listed::<module::$listed>();)*
        $($($types.single::<module::$single>();)*)?
    })*};
}

struct Types {
    kinds: Vec<Kind>,
    generator: SchemaGenerator,
}

impl Types {
    fn new() -> Types {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = super::schemas::REFERENCE.trim_start_matches('#').into();
        settings.transforms.clear();
        Types { kinds: Vec::new(), generator: settings.into_generator() }
    }

    fn kinds(&mut self) {
        kinds! { self:
            k8s_openapi::api::core::v1 {
                ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
                PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret
                Service ServiceAccount | Binding
            }
            k8s_openapi::api::admissionregistration::v1 {
                MutatingWebhookConfiguration ValidatingAdmissionPolicy
                ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
            }
            k8s_openapi::api::apps::v1 {
                ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet
            }
            k8s_openapi::api::authentication::v1 { | SelfSubjectReview TokenRequest TokenReview }
            k8s_openapi::api::authorization::v1 {
                | LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
                SubjectAccessReview
            }
            k8s_openapi::api::autoscaling::v1 { HorizontalPodAutoscaler | Scale }
            k8s_openapi::api::autoscaling::v2 { HorizontalPodAutoscaler }
            k8s_openapi::api::batch::v1 { CronJob Job }
            k8s_openapi::api::certificates::v1 { CertificateSigningRequest }
            k8s_openapi::api::coordination::v1 { Lease }
            k8s_openapi::api::discovery::v1 { EndpointSlice }
            k8s_openapi::api::events::v1 { Event }
            k8s_openapi::api::flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
            k8s_openapi::api::networking::v1 {
                IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR
            }
            k8s_openapi::api::node::v1 { RuntimeClass }
            k8s_openapi::api::policy::v1 { PodDisruptionBudget | Eviction }
            k8s_openapi::api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
            k8s_openapi::api::scheduling::v1 { PriorityClass }
            k8s_openapi::api::storage::v1 {
                CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
            }
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 {
                CustomResourceDefinition
            }
            k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 { APIService }
        }
    }

    /// What is said besides the kinds.
    fn others(&mut self) {
        let generator = &mut self.generator;
        generator.subschema_for::<meta::APIGroup>();
        generator.subschema_for::<meta::APIGroupList>();
        generator.subschema_for::<meta::APIResourceList>();
        generator.subschema_for::<meta::APIVersions>();
        generator.subschema_for::<meta::DeleteOptions>();
        generator.subschema_for::<meta::ListMeta>();
        generator.subschema_for::<meta::Patch>();
        generator.subschema_for::<meta::Status>();
    }

    fn listed<K: ListableResource + JsonSchema>(&mut self) {
        self.add::<K>(Some(K::LIST_KIND));
    }

    fn single<K: Resource + JsonSchema>(&mut self) {
        self.add::<K>(None);
    }

    fn add<K: Resource + JsonSchema>(&mut self, list: Option<&'static str>) {
        self.generator.subschema_for::<K>();
        let (group, version, kind) = (K::GROUP, K::VERSION, K::KIND);
        let schema = K::schema_name().into_owned();
        self.kinds.push(Kind { group, version, kind, schema, list });
    }
}
