import pytest


@pytest.fixture(scope="session")
def cif_folder(tmp_path_factory):
    """60 crystals and `properties.csv`; tests only read it."""
    from crystals import write_crystals

    folder = tmp_path_factory.mktemp("crystals") / "cifs"
    write_crystals(folder, 60)
    return folder


@pytest.fixture(scope="session")
def broken_cifs(tmp_path_factory):
    """One CIF file for each kind of damage; tests only read it."""
    from crystals import write_broken

    folder = tmp_path_factory.mktemp("broken") / "cifs"
    write_broken(folder)
    return folder
