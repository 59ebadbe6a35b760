"""What the environment says to the services of the shop."""

import os
from dataclasses import dataclass

from headwater import ConfigurationError, Retry


@dataclass(frozen=True)
class Settings:
    """`fail_customer`: the customer whose payments always fail, to try what becomes of them; normally nobody."""

    seed: int
    payment_seconds: float
    fail_customer: str
    retry: Retry


def settings() -> Settings:
    """Read the environment. Raises ConfigurationError."""
    return Settings(
        seed=int(_number("SHOP_SEED", 1)),
        payment_seconds=_number("SHOP_PAYMENT_SECONDS", 15 * 60),
        fail_customer=os.environ.get("SHOP_FAIL_CUSTOMER", ""),
        retry=Retry(attempts=int(_number("SHOP_RETRY_ATTEMPTS", Retry().attempts))),
    )


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise ConfigurationError(f"{name} is {text!r}, which is not a number") from None
