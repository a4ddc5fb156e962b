"""What every package uses: checks, calls of users' networks, files, downloads."""
