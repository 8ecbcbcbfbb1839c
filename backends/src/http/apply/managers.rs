//! Who owns what of an object: `metadata.managedFields` (apimachinery `pkg/util/managedfields`).

use super::entry::{Entry, Said};
use super::fields::Set;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use kubesim_actors::objects::Managed;
use std::collections::BTreeMap;

pub const APPLY: &str = "Apply";
const UPDATE: &str = "Update";
/// How many entries of updates are kept (`DefaultMaxUpdateManagers`).
const MOST_UPDATES: usize = 10;
/// Who has what is kept no longer by itself.
const ANCIENT: &str = "ancient-changes";

/// Whose fields an entry has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub applies: bool,
    /// Empty: of the object itself.
    pub subresource: String,
    /// In which version one updates. Empty: one who applies is the same in all of them.
    pub version: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owned {
    pub set: Set,
    /// In which version of the API these fields are.
    pub version: &'static str,
    pub time: Option<Time>,
}

impl Owned {
    fn entry<'a>(&'a self, manager: &'a Manager) -> Entry<'a> {
        Entry {
            api_version: self.version,
            fields_type: "FieldsV1",
            fields_v1: &self.set,
            manager: &manager.name,
            operation: if manager.applies { APPLY } else { UPDATE },
            subresource: &manager.subresource,
            time: self.time.as_ref(),
        }
    }
}

/// All of an object's managers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(pub BTreeMap<Manager, Owned>);

impl Managers {
    /// `versions` finds those in which the object is served; entries of others are dropped, as
    /// upstream does. The error says which entry is none.
    pub fn read(
        managed: &Managed,
        versions: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<Managers, String> {
        let mut managers = BTreeMap::new();
        for (index, entry) in Said::list(managed).into_iter().enumerate() {
            let at = |why: &str| format!("managed fields entry {index}: {why}");
            let wrong = |why: &str| Err(at(why));
            let applies = match entry.operation.as_deref() {
                Some(APPLY) => true,
                Some(UPDATE) => false,
                _ => return wrong("operation must be `Apply` or `Update`"),
            };
            let theirs = entry.api_version.as_deref().unwrap_or_default();
            if theirs.is_empty() {
                return wrong("apiVersion must not be empty");
            }
            match entry.fields_type.as_deref().unwrap_or_default() {
                "FieldsV1" => {}
                "" => return wrong("missing fieldsType"),
                other => return wrong(&format!("invalid fieldsType {other:?}")),
            }
            let set = entry.fields_v1.unwrap_or_else(|| Ok(Set::default()));
            let set = set.map_err(|why| at(&why))?;
            let name = entry.manager.unwrap_or_default();
            let subresource = entry.subresource.unwrap_or_default();
            if let Some(version) = versions(theirs) {
                let mine = if applies { "" } else { version };
                let manager = Manager { name, applies, subresource, version: mine };
                managers.insert(manager, Owned { set, version, time: entry.time });
            }
        }
        Ok(Managers(managers))
    }

    /// First those who apply, then by age; nothing if there is nobody.
    pub fn print(&self) -> Managed {
        let mut all: Vec<(&Manager, &Owned)> = self.0.iter().collect();
        all.sort_by_key(|(manager, owned)| (!manager.applies, seconds(owned.time.as_ref())));
        let entries: Vec<Entry<'_>> = all.iter().map(|(one, owned)| owned.entry(one)).collect();
        Managed::of(Some(&entries[..]).filter(|entries| !entries.is_empty()))
    }

    pub fn drop_empty(&mut self) {
        self.0.retain(|_, owned| !owned.set.is_empty());
    }

    /// Makes one of the oldest updates, in each version one, until there are no more than are kept
    /// (`capmanagers.go`).
    pub fn cap(&mut self) {
        let updates = self.0.iter().filter(|(manager, _)| !manager.applies);
        let mut oldest: Vec<(i64, Manager)> =
            updates.map(|(one, owned)| (seconds(owned.time.as_ref()), one.clone())).collect();
        oldest.sort();
        let mut count = oldest.len();
        let mut first: BTreeMap<&'static str, Manager> = BTreeMap::new();
        for (_, manager) in oldest {
            if count <= MOST_UPDATES {
                return;
            }
            let version = manager.version;
            let Some(before) = first.get(version) else {
                first.insert(version, manager);
                continue;
            };
            let subresource = String::new();
            let bucket = Manager { name: ANCIENT.to_owned(), applies: false, subresource, version };
            if manager == bucket {
                continue;
            }
            let ancient = self.0.remove(&bucket).or_else(|| self.0.remove(before));
            let mut ancient = ancient.unwrap_or_default();
            if let Some(owned) = self.0.remove(&manager) {
                // The time is that of the newest of them.
                ancient = Owned { set: ancient.set.union(&owned.set), ..owned };
            }
            self.0.insert(bucket, ancient);
            count -= 1;
        }
    }
}

fn seconds(time: Option<&Time>) -> i64 {
    time.map_or(0, |time| time.0.as_second())
}

/// Whether a client wants to have them forgotten: an empty list, or one of an empty entry.
pub fn is_reset(managed: &Managed) -> bool {
    *managed == Managed::of::<ManagedFieldsEntry>(Some(&[]))
        || *managed == Managed::of(Some(&[ManagedFieldsEntry::default()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    fn entry(manager: &str, operation: &str, second: i64) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            api_version: Some("v1".to_owned()),
            time: Some(Time(Timestamp::from_second(second).expect("a time"))),
            fields_type: Some("FieldsV1".to_owned()),
            fields_v1: Some(FieldsV1(json!({"f:data": {format!("f:{manager}"): {}}}))),
            subresource: None,
        }
    }

    /// Of an object that is served in `v1` and `v1beta1`.
    fn read(entries: &[ManagedFieldsEntry]) -> Result<Managers, String> {
        Managers::read(&Managed::of(Some(entries)), |version| {
            ["v1", "v1beta1"].into_iter().find(|known| *known == version)
        })
    }

    fn in_beta(entry: ManagedFieldsEntry) -> ManagedFieldsEntry {
        ManagedFieldsEntry { api_version: Some("v1beta1".to_owned()), ..entry }
    }

    #[test]
    fn who_applies_is_the_same_in_all_versions() {
        let updates = vec![entry("a", UPDATE, 1), in_beta(entry("a", UPDATE, 2))];
        assert_eq!(read(&updates).expect("managers").print().entries(), Some(updates));
        let applies = vec![entry("a", APPLY, 1), in_beta(entry("a", APPLY, 2))];
        assert_eq!(
            read(&applies).expect("managers").print().entries(),
            Some(applies[1..].to_vec())
        );
    }

    #[test]
    fn entries_are_read_and_printed_in_order() {
        let later =
            ManagedFieldsEntry { api_version: Some("v2".to_owned()), ..entry("other", UPDATE, 3) };
        let (a, b, c) = (entry("b", APPLY, 9), entry("a", UPDATE, 4), entry("c", UPDATE, 2));
        let all = vec![later, b.clone(), c.clone(), a.clone()];
        let managers = read(&all).expect("managers");
        assert_eq!(managers.print(), Managed::of(Some(&[a, c, b])));
        assert_eq!(Managers::default().print(), Managed::default());
        let wrong = |change: fn(&mut ManagedFieldsEntry)| {
            let mut entry = entry("a", UPDATE, 1);
            change(&mut entry);
            read(&[entry]).expect_err("wrong")
        };
        assert!(wrong(|one| one.operation = None).contains("`Apply` or `Update`"));
        assert!(wrong(|one| one.api_version = None).contains("apiVersion"));
        assert!(wrong(|one| one.fields_type = Some("V2".to_owned())).contains("\"V2\""));
        assert!(wrong(|one| one.fields_v1 = Some(FieldsV1(json!(1)))).contains("object"));
        let reset = |entries: &[ManagedFieldsEntry]| is_reset(&Managed::of(Some(entries)));
        assert!(reset(&[]) && reset(&[ManagedFieldsEntry::default()]));
        assert!(!is_reset(&Managed::default()) && !reset(&[entry("a", UPDATE, 1)]));
    }

    #[test]
    fn the_oldest_updates_become_one() {
        let mut all: Vec<_> = (0..12).map(|n| entry(&format!("m{n:02}"), UPDATE, n)).collect();
        all.push(entry("kubectl", APPLY, 0));
        let mut managers = read(&all).expect("managers");
        managers.cap();
        let printed = managers.print().entries().expect("entries");
        let names: Vec<&str> = printed.iter().filter_map(|one| one.manager.as_deref()).collect();
        let kept: Vec<String> = (3..12).map(|n| format!("m{n:02}")).collect();
        let mut expected = vec!["kubectl", "ancient-changes"];
        expected.extend(kept.iter().map(String::as_str));
        assert_eq!(names, expected);
        let ancient = &printed[1].fields_v1.as_ref().expect("fields").0;
        assert_eq!(*ancient, json!({"f:data": {"f:m00": {}, "f:m01": {}, "f:m02": {}}}));
        assert_eq!(seconds(printed[1].time.as_ref()), 2);
        let before = managers.clone();
        managers.cap();
        assert_eq!(managers, before);
        // The beta's go into one of their own.
        let mut all: Vec<_> = (0..12).map(|n| entry(&format!("m{n:02}"), UPDATE, n)).collect();
        all[0] = in_beta(all[0].clone());
        all[2] = in_beta(all[2].clone());
        let mut managers = read(&all).expect("managers");
        managers.cap();
        let printed = managers.print().entries().expect("entries");
        let ancient = |entry: &ManagedFieldsEntry| entry.manager.as_deref() == Some(ANCIENT);
        let versions: Vec<_> = printed.iter().filter(|one| ancient(one)).collect();
        let versions: Vec<_> = versions.iter().map(|one| one.api_version.as_deref()).collect();
        assert_eq!((printed.len(), versions), (10, vec![Some("v1beta1"), Some("v1")]));
    }
}
