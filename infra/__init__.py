"""What it runs on and against: broker, clients, deployment, plants."""
