"""Production's backup on the staging server, without real personal data, and dumps for developers."""
