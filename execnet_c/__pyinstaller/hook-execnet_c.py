"""What PyInstaller adds to a program that imports execnet_c: its modules, most of which are imported when they are first
needed; their source, as far ends are sent that of some; and the texts that stand ready for far ends."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

# These import packages that the program may not have. A program that has them names these modules itself.
LEFT = ("execnet_c.pytest_plugin", "execnet_c.tagging", "execnet_c._tagger", "execnet_c.__main__", "execnet_c.__pyinstaller")

hiddenimports = [name for name in collect_submodules("execnet_c") if not name.startswith(LEFT)]
datas = collect_data_files("execnet_c", include_py_files=True, excludes=["__pyinstaller", "**/*.pyi", "py.typed"])
