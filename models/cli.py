"""`rehearse train` and what goes with it; mounted by the main command by its entry point."""

import typer

from models.cli_adapt import adapt_command
from models.cli_evaluate import evaluate_command
from models.cli_identify import identify_command
from models.cli_pretrain import pretrain
from models.cli_train import train

app = typer.Typer(help="Train and judge world models.", no_args_is_help=True)
app.command("train", rich_help_panel="Models")(train)
app.command("pretrain", rich_help_panel="Models")(pretrain)
app.command("evaluate", rich_help_panel="Models")(evaluate_command)
app.command("identify", rich_help_panel="Models")(identify_command)
app.command("adapt", rich_help_panel="Models")(adapt_command)

if __name__ == "__main__":  # as `torchrun -m models.cli train …` starts it
    app()
