use super::super::fields::Fields;
use super::super::keys;
use super::super::manifest::{self, Mistake};
use super::super::model::{Manifest, Workload};
use super::super::tree::{At, Item, Value as Tree};
use super::super::value;
use super::Reader;
use kubesim_actors::objects::{Name, Step};
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
                self.generate(&name, f.place("name"), item, &mut objects);
            }
            workloads.push(Workload { name, at, objects });
        }
        workloads
    }

    /// What `manifests`, `yaml` and `object` hold, in this order.
    pub fn objects(&self, f: Fields<'_>) -> Vec<Manifest> {
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
            self.table(item, &mut objects);
        }
        objects
    }

    /// An object as TOML.
    fn table(&self, item: &Item, objects: &mut Vec<Manifest>) {
        match manifest::object(&item.to_json()) {
            Ok(object) => {
                objects.push(Manifest::new(Arc::new(object), self.place(item.at)));
            }
            Err(mistakes) => self.mistakes(item, mistakes),
        }
    }

    /// Mistakes of an object in the tree, each at its key.
    pub fn mistakes(&self, item: &Item, mistakes: Vec<Mistake>) {
        for mistake in mistakes {
            self.log.error(key_of(item, &mistake.path.0), mistake.message, mistake.help);
        }
    }

    /// `a.toml:12`, for who reads of what stands there.
    fn place(&self, at: At) -> Name {
        let source = &self.log.sources[at.source];
        let above = source.text.get(..at.start).unwrap_or_default().matches('\n').count();
        Name::from(format!("{}:{}", source.name, above + 1))
    }

    /// YAML inside the TOML. Where it stands there as it is, its mistakes are shown there.
    fn inline(&self, f: Fields<'_>, yaml: &str, objects: &mut Vec<Manifest>) {
        let at = f.place("yaml");
        let source = &self.log.sources[at.source];
        let raw = source.text.get(at.start..at.end).unwrap_or_default();
        let verbatim = ["\"\"\"\n", "'''\n"]
            .iter()
            .any(|quote| raw.strip_prefix(quote).is_some_and(|text| text.starts_with(yaml)));
        let above = source.text[..at.start].matches('\n').count() + 1;
        let wrong = match manifest::parse(&source.name, yaml) {
            Ok(found) => {
                objects.extend(found.into_iter().map(|(line, object)| {
                    let line = if verbatim { line + above } else { above };
                    Manifest::new(object, Name::from(format!("{}:{line}", source.name)))
                }));
                return;
            }
            Err(wrong) => wrong,
        };
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

    fn manifest(&self, at: At, name: &str, text: &str, objects: &mut Vec<Manifest>) {
        match manifest::parse(name, text) {
            Ok(found) => {
                objects.extend(found.into_iter().map(|(line, object)| {
                    Manifest::new(object, Name::from(format!("{name}:{line}")))
                }))
            }
            Err(wrong) => wrong.into_iter().for_each(|mistake| self.foreign(at, mistake)),
        }
    }

    /// Deployments `name-1`, ... and a Service for each.
    fn generate(&self, prefix: &Name, named: At, item: &Item, objects: &mut Vec<Manifest>) {
        let f = Fields::open(self.log, item, &[&keys::GENERATE]);
        for key in ["deployments", "replicas", "image"] {
            f.required(key);
        }
        let deployments = f.int("deployments", 0..=MOST).unwrap_or(0);
        let replicas = f.int("replicas", 0..=MOST).unwrap_or(0);
        self.quantity(f, "cpu", value::cpu);
        self.quantity(f, "memory", value::memory);
        let labels = self.label_map(f, "labels");
        let port = f.port("port").unwrap_or(80);
        let services = f.bool("services", true);
        self.generated_name(f, named, &format!("{prefix}-{}", deployments.max(1)), services);
        let text = |key, default: &str| f.text(key).unwrap_or(default).to_owned();
        let image = text("image", "");
        let (cpu, memory) = (text("cpu", "100m"), text("memory", "64Mi"));
        let surge = self.amount(f, "max-surge");
        let unavailable = self.amount(f, "max-unavailable");
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
                        {"maxSurge": surge, "maxUnavailable": unavailable}},
                    "template":
                        {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            });
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": meta,
                "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": port}]},
            });
            for value in services.then_some(service).into_iter().chain([deployment]) {
                match manifest::object(&value) {
                    Ok(object) => {
                        let place = self.place(item.at);
                        objects.push(Manifest::new(Arc::new(object), place));
                    }
                    Err(mistakes) => self.mistakes(item, mistakes),
                }
            }
        }
    }

    /// An IntOrString: `1` is a number of pods, `25%` a share. What upstream takes:
    /// `ValidatePositiveIntOrPercent` and `IsNotMoreThan100Percent` (pkg/apis/apps/validation).
    fn amount(&self, f: Fields<'_>, key: &str) -> Value {
        let share = Value::from("25%");
        let Some(item) = f.item(key) else { return share };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let text = match &item.value {
            Tree::Text(text) => text.clone(),
            Tree::Int(number) => number.to_string(),
            _ => String::new(),
        };
        let whole = if digits(&text) { text.parse::<i32>().ok() } else { None };
        let percent = text.strip_suffix('%').filter(|number| digits(number));
        let most = if key == "max-unavailable" { 100 } else { u32::MAX };
        if let Some(number) = whole {
            Value::from(number)
        } else if percent.is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n <= most)) {
            Value::from(text)
        } else {
            let shown = item.text().map_or_else(|| item.kind().to_owned(), |t| format!("`{t}`"));
            let most = if most == 100 { ", at most 100%" } else { "" };
            let message = format!("`{key}` is {shown}, expected a whole number or a percentage");
            f.error(key, message, format!("write it like \"2\" or \"25%\"{most}"));
            share
        }
    }
}

/// The innermost key on a path that there is, or the table.
fn key_of(item: &Item, path: &[Step]) -> At {
    let (mut here, mut found) = (item, item.at);
    for step in path {
        here = match (&here.value, step) {
            (Tree::Table(table), Step::Field(name)) => {
                let Some(entry) = table.entries.iter().find(|entry| entry.key == *name) else {
                    break;
                };
                found = entry.key_at;
                &entry.item
            }
            (Tree::List(items), Step::Item(number)) if *number < items.len() => &items[*number],
            _ => break,
        };
    }
    found
}
