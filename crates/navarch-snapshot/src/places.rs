//! Where fields of objects are written, looked for once.

use std::collections::HashMap;
use std::sync::Arc;

use navarch_model::finding::Finding;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::place::Position;

use crate::snapshot::Snapshot;

/// Positions of fields, by object and path. To find one, the text of its object is read again
/// ([`navarch_model::place::FilePlace::locate`]), which costs more than all else that a finding takes: what
/// was found stays for as long as the object does and somebody asks for it.
#[derive(Debug, Default)]
pub struct Places {
    known: HashMap<(ObjectKey, String), Known>,
}

#[derive(Debug)]
struct Known {
    object: Arc<Object>,
    position: Option<Position>,
    asked: bool,
}

impl Snapshot {
    /// The findings, with the place of the other side of each conflict.
    pub fn placed_findings(&self, places: &mut Places) -> Vec<Finding> {
        let mut locate = |key: &ObjectKey, path: &str| places.locate(self, key, path);
        self.findings.iter().map(|finding| finding.clone().locate_other(&mut locate)).collect()
    }
}

impl Places {
    /// Where a field of an object is; `None` if there is no such object.
    pub fn locate(&mut self, snapshot: &Snapshot, key: &ObjectKey, path: &str) -> Option<Position> {
        let object = snapshot.object(key)?;
        let place = (key.clone(), path.to_owned());
        let known = self.known.entry(place).or_insert_with(|| Known {
            object: object.clone(),
            position: object.locate(path),
            asked: true,
        });
        if !Arc::ptr_eq(&known.object, object) {
            *known = Known { object: object.clone(), position: object.locate(path), asked: true };
        }
        known.asked = true;
        known.position.clone()
    }

    /// Forgets what nobody has asked for since the last call.
    pub fn sweep(&mut self) {
        self.known.retain(|_, known| std::mem::take(&mut known.asked));
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::Kind;
    use navarch_model::change::ChangeSet;
    use navarch_model::document::parse_text;

    use super::*;
    use crate::World;
    use crate::world::Options;

    #[test]
    fn a_place_is_that_of_the_object_as_it_is() {
        let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: b}\nspec:\n  host: c\n";
        let key = ObjectKey::new(Kind::DestinationRule, "b", "a");
        let mut world = World::new(Options::default());
        let mut places = Places::default();
        let mut line = |text: &str| {
            let snapshot = world.apply(ChangeSet::upserting(parse_text("a.yaml", text).objects));
            let position = places.locate(&snapshot, &key, "spec.host");
            let again = places.locate(&snapshot, &key, "spec.host");
            assert_eq!(position, again);
            places.sweep();
            assert_eq!(places.known.len(), 1);
            position.map(|position| position.to_string())
        };
        assert_eq!(line(text).as_deref(), Some("a.yaml:5:9"));
        assert_eq!(
            line(&format!("# moved\n{}", text.replace("host: c", "host: d"))).as_deref(),
            Some("a.yaml:6:9")
        );
        places.sweep();
        assert!(places.known.is_empty());
    }
}
