//! The feeds of one stream.

use std::ops::{Index, IndexMut};
use std::sync::LazyLock;

use navarch_envoy::XdsType;

use super::Feed;

/// One feed per type, in the order of the types. A client uses four of a dozen, so a feed takes memory, and time in each
/// round, only from when something was written to it. Until then it reads as one on which nothing has happened.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    touched: [Option<Box<Feed>>; XdsType::COUNT],
}

static UNTOUCHED: LazyLock<[Feed; XdsType::COUNT]> = LazyLock::new(|| XdsType::ALL.map(Feed::new));

impl Feeds {
    /// The types of which something has happened.
    pub fn types(&self) -> impl Iterator<Item = XdsType> + use<> {
        let touched = self.touched.each_ref().map(Option::is_some);
        XdsType::ALL.into_iter().filter(move |ty| touched[ty.index()])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Feed> {
        self.touched.iter().flatten().map(|feed| &**feed)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Feed> {
        self.touched.iter_mut().flatten().map(|feed| &mut **feed)
    }
}

impl Index<XdsType> for Feeds {
    type Output = Feed;

    fn index(&self, ty: XdsType) -> &Feed {
        self.touched[ty.index()].as_deref().unwrap_or_else(|| &UNTOUCHED[ty.index()])
    }
}

impl IndexMut<XdsType> for Feeds {
    fn index_mut(&mut self, ty: XdsType) -> &mut Feed {
        self.touched[ty.index()].get_or_insert_with(|| Box::new(Feed::new(ty)))
    }
}
