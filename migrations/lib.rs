//! The ordered schema changes of Flagstate's database, embedded into whoever may apply them.
//!
//! query-api does not depend on this crate: it reads which schema it finds and refuses to be ready for one it does
//! not know. `README.md` beside this file tells how to add a change.

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

/// All changes, oldest first.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!(".");
