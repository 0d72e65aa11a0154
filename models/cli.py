"""`rehearse train` and `rehearse evaluate`; mounted by the main command by its entry point."""

import typer

from models.cli_evaluate import evaluate_command
from models.cli_train import train

app = typer.Typer(help="Train and judge world models.", no_args_is_help=True)
app.command("train", rich_help_panel="Models")(train)
app.command("evaluate", rich_help_panel="Models")(evaluate_command)

if __name__ == "__main__":  # as `torchrun -m models.cli train …` starts it
    app()
