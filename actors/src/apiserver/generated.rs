//! Names that the server makes up.

use super::{ApiServer, errors};
use crate::objects::validation::Causes;
use crate::objects::{Key, Object};
use crate::ports::api::Error;
use kubesim_runtime::{Context, Rng};

/// What spells no words and is not mistaken for another (apimachinery's util/rand).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Followed by five letters.
pub(super) fn with_letters(base: &str, rng: &mut Rng) -> String {
    let letters = (0..5).map(|_| char::from(*rng.pick(ALPHABET).unwrap_or(&b'b')));
    base.chars().chain(letters).collect()
}

impl ApiServer {
    /// `generateName` and five characters without vowels, as apimachinery's `SimpleNameGenerator`.
    pub(super) fn generate_name(
        &self,
        object: &Object,
        ctx: &mut Context<'_, ApiServer>,
    ) -> Result<String, Error> {
        const MAX_BASE: usize = 58;
        let kind = object.kind();
        let Some(base) = object.meta.generate_name.as_deref().filter(|base| !base.is_empty())
        else {
            let mut causes = Causes::default();
            causes.required("metadata.name", "name or generateName is required");
            errors::unless_valid(causes, kind, "")?;
            return Ok(String::new());
        };
        let base = base.get(..MAX_BASE).unwrap_or(base);
        let mut name = String::new();
        for _ in 0..8 {
            name = with_letters(base, ctx.rng());
            let key = Key::new(object.key.namespace.clone(), name.as_str());
            if self.cache.object(kind, &key).is_none() && !self.busy(&(kind, key)) {
                return Ok(name);
            }
        }
        Err(errors::already_exists(kind, &name))
    }
}
