"""Who is who, and what each may do: identities, authorities, passkeys, policy, secrets, checksums."""
