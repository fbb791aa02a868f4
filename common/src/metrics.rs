//! Stand-in.
/// Stand-in.
#[derive(Clone)]
pub struct LimitHits;
impl LimitHits {
    /// Stand-in.
    pub fn hit(&self, _: &'static str) {}
}
