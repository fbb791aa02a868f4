//! The ordered schema changes of Flagstate's database, embedded into whoever may apply them.
//!
//! query-api does not depend on this crate: it reads which schema it finds and refuses to be ready for one it does
//! not know. `README.md` beside this file tells how to add a change.

use diesel_migrations::{EmbeddedMigrations, embed_migrations};

/// All changes, oldest first.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!(".");

/// What the owner of a database executes to let a role read all tables, those of later changes too, and nothing else.
///
/// `role` is an identifier as SQL takes it, quoted if need be. Temporary tables and large objects, which PostgreSQL
/// lets everybody write, are taken from `PUBLIC`; the latter only a superuser can take, for others that is left out.
#[must_use]
pub fn reader_grants(role: &str) -> [String; 6] {
    [
        format!("GRANT USAGE ON SCHEMA public TO {role}"),
        format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}"),
        format!("ALTER ROLE {role} SET default_transaction_read_only = on"),
        "DO $$ BEGIN \
             EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); \
             REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
         END $$"
            .to_owned(),
        "DO $$ DECLARE writer regprocedure; BEGIN \
             IF current_setting('is_superuser') = 'on' THEN \
                 FOR writer IN \
                     SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace \
                     AND (proname ~ '^lo_?(creat|create|import|export|from_bytea|put|open|write|unlink|truncate|truncate64)$' \
                         OR proname = 'pg_logical_emit_message') \
                 LOOP \
                     EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', writer); \
                 END LOOP; \
             END IF; \
         END $$"
            .to_owned(),
    ]
}
