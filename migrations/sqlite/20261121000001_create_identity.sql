-- People, credentials, sandboxes, grants and the audit log: everything the concierge service writes.
-- Ids are text with the contract's prefixes; states are text with a check, so that a dump can be read.

create table users (
    id text not null,
    email text,
    display_name text,
    handle text,
    canonical_id text,
    primary_sandbox_id text,
    default_project_id text,
    metadata text not null,
    profile_created_at text,
    created_at text not null,
    updated_at text not null,
    constraint users_pkey primary key (id),
    constraint users_email_key unique (email),
    constraint users_handle_key unique (handle)
);

-- One-time login codes; only a hash is kept. The newest unconsumed code of an address is the valid one.
create table login_codes (
    id text not null,
    email text not null,
    code_hash text not null,
    attempts integer not null,
    created_at text not null,
    expires_at text not null,
    consumed_at text,
    constraint login_codes_pkey primary key (id)
);
create index login_codes_email_created_at_idx on login_codes (email, created_at);

-- Refresh tokens rotate: a used one that comes back revokes its whole family.
create table refresh_tokens (
    id text not null,
    user_id text not null,
    family_id text not null,
    token_hash text not null,
    created_at text not null,
    expires_at text not null,
    used_at text,
    revoked_at text,
    constraint refresh_tokens_pkey primary key (id),
    constraint refresh_tokens_token_hash_key unique (token_hash),
    constraint refresh_tokens_user_id_fkey foreign key (user_id) references users (id) on delete cascade
);
create index refresh_tokens_family_id_idx on refresh_tokens (family_id);

-- Keys that sign access tokens; the private half is sealed under the master key.
create table signing_keys (
    id text not null,
    sealed_private_key text not null,
    public_key text not null,
    created_at text not null,
    retired_at text,
    constraint signing_keys_pkey primary key (id)
);

create table sandboxes (
    id text not null,
    user_id text not null,
    owner_id text not null,
    name text not null,
    tier text not null,
    status text not null,
    storage_provider_type text not null,
    metadata text not null,
    created_at text not null,
    updated_at text not null,
    constraint sandboxes_pkey primary key (id),
    constraint sandboxes_user_id_owner_id_name_key unique (user_id, owner_id, name),
    constraint sandboxes_user_id_fkey foreign key (user_id) references users (id) on delete cascade,
    constraint sandboxes_tier_check check (tier in ('free', 'pro', 'enterprise')),
    constraint sandboxes_status_check check (status in ('active', 'suspended', 'archived'))
);

create table projects (
    id text not null,
    sandbox_id text not null,
    user_id text not null,
    name text not null,
    description text,
    status text not null,
    metadata text not null,
    created_at text not null,
    updated_at text not null,
    constraint projects_pkey primary key (id),
    constraint projects_sandbox_id_fkey foreign key (sandbox_id) references sandboxes (id) on delete cascade,
    constraint projects_status_check check (status in ('active', 'archived'))
);
create index projects_sandbox_id_idx on projects (sandbox_id);

-- Grants on a sandbox. Revoked rows stay for the audit.
create table connections (
    id text not null,
    sandbox_id text not null,
    user_id text not null,
    role text not null,
    project_id text,
    label text,
    expires_at text,
    revoked_at text,
    created_by text not null,
    created_at text not null,
    constraint connections_pkey primary key (id),
    constraint connections_sandbox_id_fkey foreign key (sandbox_id) references sandboxes (id) on delete cascade,
    constraint connections_user_id_fkey foreign key (user_id) references users (id) on delete cascade,
    constraint connections_role_check check (role in ('viewer', 'editor'))
);
create index connections_sandbox_id_idx on connections (sandbox_id);
create index connections_user_id_idx on connections (user_id);

-- API keys: `olk_` + 256 random bits, only their SHA-256 is kept, so a look-up is one indexed read.
create table api_keys (
    id text not null,
    user_id text not null,
    name text not null,
    key_hash text not null,
    key_prefix text not null,
    kind text not null,
    agent_id text,
    sandbox_id text,
    connection_id text,
    created_at text not null,
    expires_at text,
    revoked_at text,
    last_used_at text,
    use_count integer not null,
    constraint api_keys_pkey primary key (id),
    constraint api_keys_key_hash_key unique (key_hash),
    constraint api_keys_user_id_fkey foreign key (user_id) references users (id) on delete cascade,
    constraint api_keys_kind_check check (kind in ('general', 'agent_invoke', 'agent_delegate', 'connection'))
);
create index api_keys_user_id_idx on api_keys (user_id);
create index api_keys_connection_id_idx on api_keys (connection_id);

-- Who did what, denials too. Append-only: the triggers refuse changes whoever asks.
create table audit_records (
    id text not null,
    at text not null,
    sandbox_id text,
    user_id text,
    actor text not null,
    action text not null,
    target text not null,
    before text,
    after text,
    result text not null,
    request_id text not null,
    constraint audit_records_pkey primary key (id)
);
create index audit_records_sandbox_id_id_idx on audit_records (sandbox_id, id);
create index audit_records_user_id_id_idx on audit_records (user_id, id);

create trigger audit_records_no_update before update on audit_records
begin
    select raise(abort, 'audit records are append-only');
end;
create trigger audit_records_no_delete before delete on audit_records
begin
    select raise(abort, 'audit records are append-only');
end;
