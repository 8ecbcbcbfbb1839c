use super::super::fields::Fields;
use super::super::keys;
use super::super::manifest;
use super::super::model::Workload;
use super::super::tree::{At, Item};
use super::super::value;
use super::Reader;
use kubesim_actors::objects::{Name, Object};
use serde_json::{Value, json};
use std::sync::Arc;

/// More than any machine can simulate.
const MOST: i64 = 1_000_000;

impl Reader<'_> {
    pub fn workloads(&self, top: Fields<'_>) -> Vec<Workload> {
        let mut names = Vec::new();
        let mut workloads = Vec::new();
        for item in top.tables("workload") {
            let f = Fields::open(self.log, item, &[&keys::WORKLOAD]);
            let name = f.required_name("name");
            self.unique(&mut names, "workload", &name, f.place("name"));
            let at = f.span("at").unwrap_or_default();
            self.within_run(f, "at", at.to);
            let mut objects = self.objects(f);
            if let Some(item) = f.item("generate") {
                self.generate(&name, item, &mut objects);
            }
            workloads.push(Workload { name, at, objects });
        }
        workloads
    }

    /// What `manifests`, `yaml` and `object` hold, in this order.
    pub fn objects(&self, f: Fields<'_>) -> Vec<Arc<Object>> {
        let mut objects = Vec::new();
        for (pattern, at) in f.texts("manifests") {
            match (self.files)(pattern) {
                Err(why) => self.log.error(at, why, "paths start at the scenario's folder"),
                Ok(files) => {
                    for (name, text) in files {
                        self.manifest(at, &name, &text, &mut objects);
                    }
                }
            }
        }
        if let Some(yaml) = f.text("yaml") {
            self.inline(f, yaml, &mut objects);
        }
        for item in f.tables("object") {
            match manifest::object(item.to_json()) {
                Ok(object) => objects.push(Arc::new(object)),
                Err(why) => self.log.error(item.at, why, ""),
            }
        }
        objects
    }

    /// YAML inside the TOML. Where it stands there as it is, its mistakes are shown there.
    fn inline(&self, f: Fields<'_>, yaml: &str, objects: &mut Vec<Arc<Object>>) {
        let at = f.place("yaml");
        let source = &self.log.sources[at.source];
        let raw = source.text.get(at.start..at.end).unwrap_or_default();
        let verbatim = ["\"\"\"\n", "'''\n"]
            .iter()
            .any(|quote| raw.strip_prefix(quote).is_some_and(|text| text.starts_with(yaml)));
        let Err(wrong) = manifest::parse(&source.name, yaml).map(|found| objects.extend(found))
        else {
            return;
        };
        let above = source.text[..at.start].matches('\n').count() + 1;
        for mut mistake in wrong {
            if verbatim {
                mistake.line += above;
                self.foreign(at, mistake);
            } else {
                let help = format!("in its line {}: {}", mistake.line, mistake.source);
                f.error("yaml", mistake.message, help);
            }
        }
    }

    fn manifest(&self, at: At, name: &str, text: &str, objects: &mut Vec<Arc<Object>>) {
        match manifest::parse(name, text) {
            Ok(found) => objects.extend(found),
            Err(wrong) => wrong.into_iter().for_each(|mistake| self.foreign(at, mistake)),
        }
    }

    /// Deployments `name-1`, ... and a Service for each.
    fn generate(&self, prefix: &Name, item: &Item, objects: &mut Vec<Arc<Object>>) {
        let f = Fields::open(self.log, item, &[&keys::GENERATE]);
        for key in ["deployments", "replicas", "image"] {
            f.required(key);
        }
        let deployments = f.int("deployments", 0..=MOST).unwrap_or(0);
        let replicas = f.int("replicas", 0..=MOST).unwrap_or(0);
        self.quantity(f, "cpu", value::cpu);
        self.quantity(f, "memory", value::memory);
        let labels = f.text_map("labels");
        let port = f.port("port").unwrap_or(80);
        let services = f.bool("services", true);
        let text = |key, default: &str| f.text(key).unwrap_or(default).to_owned();
        let image = text("image", "");
        let (cpu, memory) = (text("cpu", "100m"), text("memory", "64Mi"));
        let (surge, unavailable) = (text("max-surge", "25%"), text("max-unavailable", "25%"));
        let namespace = text("namespace", "default");
        for number in 1..=deployments {
            let name = format!("{prefix}-{number}");
            let mut labels = labels.clone();
            labels.insert("app".to_owned(), name.clone());
            let meta = json!({"name": name, "namespace": namespace, "labels": labels});
            let container = json!({
                "name": "main", "image": image, "ports": [{"containerPort": port}],
                "resources": {"requests": {"cpu": cpu, "memory": memory}},
                "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 10},
            });
            let deployment = json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "strategy": {"type": "RollingUpdate", "rollingUpdate":
                        {"maxSurge": amount(&surge), "maxUnavailable": amount(&unavailable)}},
                    "template":
                        {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            });
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": meta,
                "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": port}]},
            });
            for value in services.then_some(service).into_iter().chain([deployment]) {
                match manifest::object(value) {
                    Ok(object) => objects.push(Arc::new(object)),
                    Err(why) => self.log.error(item.at, why, ""),
                }
            }
        }
    }
}

/// An IntOrString: `1` is a number of pods, `25%` a share.
fn amount(text: &str) -> Value {
    text.parse::<u32>().map_or_else(|_| Value::from(text), Value::from)
}
