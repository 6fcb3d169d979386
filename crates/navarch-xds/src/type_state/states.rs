//! The types of one stream.

use std::ops::{Index, IndexMut};
use std::sync::LazyLock;

use navarch_envoy::XdsType;

use super::TypeState;

/// The state of each type, in their order. A client uses four of a dozen, so a state takes memory, and time
/// in each round, only from when something was written to it. Until then it reads as one on which nothing has
/// happened.
#[derive(Debug, Default)]
pub(crate) struct TypeStates {
    touched: [Option<Box<TypeState>>; XdsType::COUNT],
}

static UNTOUCHED: LazyLock<[TypeState; XdsType::COUNT]> = LazyLock::new(|| XdsType::ALL.map(TypeState::new));

impl TypeStates {
    /// The types on which something has happened.
    pub fn types(&self) -> impl Iterator<Item = XdsType> + use<> {
        let touched = self.touched.each_ref().map(Option::is_some);
        XdsType::ALL.into_iter().filter(move |ty| touched[ty.index()])
    }

    pub fn iter(&self) -> impl Iterator<Item = &TypeState> {
        self.touched.iter().flatten().map(|state| &**state)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut TypeState> {
        self.touched.iter_mut().flatten().map(|state| &mut **state)
    }
}

impl Index<XdsType> for TypeStates {
    type Output = TypeState;

    fn index(&self, ty: XdsType) -> &TypeState {
        self.touched[ty.index()].as_deref().unwrap_or_else(|| &UNTOUCHED[ty.index()])
    }
}

impl IndexMut<XdsType> for TypeStates {
    fn index_mut(&mut self, ty: XdsType) -> &mut TypeState {
        self.touched[ty.index()].get_or_insert_with(|| Box::new(TypeState::new(ty)))
    }
}
