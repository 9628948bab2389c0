"""Sites with many routes."""


def by_path(count: int) -> list[str]:
    return [f"/section{number} respond=204" for number in range(count)]


def by_host(count: int) -> list[str]:
    """Half of them by name, half by what hosts end with."""
    return [
        f"{'*.' if number % 2 else 'www.'}customer{number}.example.com/ respond=204"
        for number in range(count)
    ]


def mixed(count: int) -> list[str]:
    """Half of them by host, half by path."""
    return [
        f"customer{number}.example.com/ respond=204" if number % 2 else f"/section{number} respond=204"
        for number in range(count)
    ]
