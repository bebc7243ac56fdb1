"""Train, validation, test and traffic: grouped, by time, without leaks."""
